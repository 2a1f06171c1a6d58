"""Parameter names: each of our parameters has a name in each family, and none has two."""

from __future__ import annotations

import pytest

from embedkit.checkpoint.hf_config import family_of
from embedkit.checkpoint.names import (
    BASE_PREFIX,
    FAMILIES,
    IGNORED_PREFIXES,
    Family,
    encoder_names,
    has_mlm_head,
    mlm_head_names,
    next_sentence_names,
    tied_names,
)
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.heads import MaskedLMHead, NextSentenceHead
from tests.tiny import FAMILY_SHAPES, tiny_config


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_names_of_its_own(family: Family) -> None:
    config = tiny_config(**FAMILY_SHAPES[family])
    names = encoder_names(family, config)
    assert set(names) == set(TransformerEncoder(config).state_dict())
    head = mlm_head_names(family, config) if has_mlm_head(family) else {}
    assert not head or set(head) == set(MaskedLMHead(config).state_dict())
    theirs = [name for parts in (*names.values(), *head.values()) for name in parts]
    assert len(theirs) == len(set(theirs))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_weight_of_the_encoder_and_every_one_of_the_head_is_ignored(family: Family) -> None:
    config = tiny_config(**FAMILY_SHAPES[family])
    ignored = IGNORED_PREFIXES[family]
    for parts in encoder_names(family, config).values():
        assert not any(name.startswith((*ignored, BASE_PREFIX[family])) for name in parts)
    if not has_mlm_head(family):
        return
    for name in [
        *tied_names(family),
        *(name for parts in mlm_head_names(family, config).values() for name in parts),
    ]:
        assert name.startswith(ignored)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_follows_from_the_shape(family: Family) -> None:
    found = family_of(tiny_config(**FAMILY_SHAPES[family]))
    alike = {"xlm-roberta": "roberta", "camembert": "roberta", "mt5": "t5"}
    assert found == alike.get(family, family)


def test_only_bert_and_our_own_have_a_next_sentence_head() -> None:
    for family in ("bert", "embedkit"):
        assert set(next_sentence_names(family)) == set(NextSentenceHead(tiny_config()).state_dict())
    with pytest.raises(
        ValueError, match="family 'mpnet' has no next-sentence head; only bert and embedkit have"
    ):
        next_sentence_names("mpnet")


def test_query_key_and_value_are_stacked_in_this_order() -> None:
    names = encoder_names("bert", tiny_config())["layers.1.attention.qkv.weight"]
    prefix = "encoder.layer.1.attention.self."
    assert names == (prefix + "query.weight", prefix + "key.weight", prefix + "value.weight")
