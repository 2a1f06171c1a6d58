"""`config.json`: our shape comes back from what we write, and the spellings of the families are understood."""

from __future__ import annotations

from typing import Any

import pytest

from embedkit.checkpoint.hf_config import read_config, write_config
from embedkit.checkpoint.names import FAMILIES, Family
from embedkit.errors import CheckpointError
from tests.tiny import FAMILY_SHAPES, tiny_config

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_written_config_is_read_as_the_same_shape(family: Family) -> None:
    config = tiny_config(**FAMILY_SHAPES[family])
    content = write_config(config, family)
    assert read_config(content, "config.json") == (family, config)
    assert content["architectures"][0].endswith("Model")


def test_sinusoidal_positions_are_remembered() -> None:
    config = tiny_config(position="sinusoidal")
    assert read_config(write_config(config, "bert"), "config.json") == ("bert", config)


def test_the_name_of_the_head_ends_the_architecture() -> None:
    assert write_config(tiny_config(), "bert", head="ForMaskedLM")["architectures"] == ["BertForMaskedLM"]


def test_distilbert_spells_its_sizes_otherwise() -> None:
    content = {
        "model_type": "distilbert",
        "vocab_size": 100,
        "dim": 32,
        "n_layers": 4,
        "n_heads": 4,
        "hidden_dim": 64,
        "max_position_embeddings": 64,
        "activation": "relu",
    }
    _, config = read_config(content, "config.json")
    assert (config.hidden_size, config.intermediate_size, config.hidden_act) == (32, 64, "relu")
    assert config.type_vocab_size == 0
    del content["dim"]
    with pytest.raises(CheckpointError, match=r"config\.json: 'dim' is None; it must be a whole number"):
        read_config(content, "config.json")


def modern(**fields: Any) -> Any:
    return read_config({"model_type": "modernbert"} | SIZES | fields, "config.json")[1]


def test_both_spellings_of_modernberts_rotary_base_are_read() -> None:
    config = modern()
    assert (config.global_rope_theta, config.local_rope_theta) == (160_000.0, 10_000.0)
    config = modern(global_rope_theta=5, local_rope_theta=7.5)
    assert (config.global_rope_theta, config.local_rope_theta) == (5.0, 7.5)
    assert modern(global_rope_theta=5.0, local_rope_theta=None).local_rope_theta == 5.0
    newer = {
        "full_attention": {"rope_theta": 5.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 6.0},
    }
    config = modern(rope_parameters=newer)
    assert (config.global_rope_theta, config.local_rope_theta) == (5.0, 6.0)
    with pytest.raises(CheckpointError, match="rope_type is 'yarn'; only 'default' is computed"):
        modern(rope_parameters={"full_attention": {"rope_type": "yarn"}})


def test_both_spellings_of_modernberts_layer_types_are_read() -> None:
    assert modern(global_attn_every_n_layers=2).global_attn_every_n_layers == 2
    kinds = ["full_attention", "sliding_attention"]
    assert modern(layer_types=[kinds[bool(i % 3)] for i in range(4)]).global_attn_every_n_layers == 3
    assert modern(layer_types=[kinds[0]] * 4).global_attn_every_n_layers == 1
    with pytest.raises(CheckpointError, match="only global attention in every n-th layer is computed"):
        modern(layer_types=[kinds[1], kinds[0], kinds[1], kinds[1]])


def test_albert_with_several_layers_in_a_group_is_refused() -> None:
    content = {"model_type": "albert", "inner_group_num": 2} | SIZES
    with pytest.raises(CheckpointError, match="inner_group_num is 2; only 1 is computed"):
        read_config(content, "config.json")
