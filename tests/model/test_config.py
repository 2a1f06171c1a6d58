"""The shape of an encoder: which values are refused, and what follows from the others."""

from __future__ import annotations

import re
from typing import Any

import pytest

from embedkit.model.config import DenseConfig, EncoderConfig, SentenceConfig
from embedkit.model.learned_parts import AttentionPoolingConfig, SimilarityConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be at least 1"),
        (
            {"hidden_size": 30, "num_attention_heads": 4},
            "hidden_size 30 is not a multiple of num_attention_heads 4",
        ),
        ({"hidden_size": 12, "num_attention_heads": 4, "position": "rope"}, "even head size; it is 3"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'; it must be one of gelu, gelu_tanh, relu, silu"),
        (
            {"position": "spiral"},
            "position is 'spiral'; it must be one of learned, sinusoidal, rope, relative",
        ),
        (
            {"attention": "cosine"},
            "attention is 'cosine'; it must be one of dot, additive, bilinear, low_rank",
        ),
        ({"attention_rank": 0}, "attention_rank is 0; it must be at least 1"),
        ({"attention": "low_rank", "attention_rank": 600}, "at most max_position_embeddings, 512"),
        ({"local_attention": -1}, "local_attention is -1; it must be at least 0"),
        (
            {"attention": "additive", "position": "relative"},
            "position 'relative' changes the product of query and key, and additive attention has none",
        ),
        (
            {"attention": "random_features", "local_attention": 8},
            "local_attention changes the scores of single keys, and attention 'random_features' has none",
        ),
        (
            {"attention": "low_rank", "position": "relative"},
            "position 'relative' changes the scores of single keys, and attention 'low_rank' has none",
        ),
        ({"num_hidden_layers": 6, "num_hidden_groups": 4}, "6 is not a multiple of num_hidden_groups 4"),
        ({"qk_norm_over_heads": True}, "it goes with qk_norm"),
        ({"second_attention_norm": True, "norm_first": True}, "it does not go with norm_first"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**fields)  # type: ignore[arg-type] # wrong values are the point


def test_sizes_that_follow_from_others() -> None:
    config = EncoderConfig(position_offset=2, max_position_embeddings=514)
    assert config.head_size == 64
    assert config.max_tokens == 512


def test_local_layers_are_all_but_every_nth() -> None:
    config = EncoderConfig(local_attention=128, global_attn_every_n_layers=3, num_hidden_layers=7)
    assert [config.layer_is_local(i) for i in range(7)] == [False, True, True, False, True, True, False]
    assert not any(EncoderConfig().layer_is_local(i) for i in range(12))


def test_the_embedding_size_follows_pooling_and_dense_layers() -> None:
    assert SentenceConfig().embedding_size(32) == 32
    assert SentenceConfig(pooling=("cls", "mean")).embedding_size(32) == 64
    dense = (DenseConfig(in_features=32, out_features=8), DenseConfig(in_features=8, out_features=5))
    assert SentenceConfig(dense=dense).embedding_size(32) == 5


def test_pooling_by_attention_gives_as_many_vectors_as_aspects_are_concatenated() -> None:
    pooling = AttentionPoolingConfig(aspects=3, combine="concat")
    assert SentenceConfig(pooling=(), attention=pooling).embedding_size(32) == 96
    assert SentenceConfig(pooling=(), attention=AttentionPoolingConfig(aspects=3)).embedding_size(32) == 32


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention": AttentionPoolingConfig()}, "pooling by attention stands alone, with pooling ()"),
        ({"layer_start": -1}, "layer_start is -1; it must be at least 0"),
        ({"similarity": SimilarityConfig(kind="bilinear")}, "compares unit vectors; set normalize"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SentenceConfig(**fields)


@pytest.mark.parametrize("pooling", [(), ("mean", "median")])
def test_unknown_or_no_pooling_is_refused(pooling: tuple[str, ...]) -> None:
    with pytest.raises(
        ValueError, match="it must name some of mean, cls, max, last, weighted_mean, mean_sqrt_len"
    ):
        SentenceConfig(pooling=pooling)  # type: ignore[arg-type] # wrong values are the point
