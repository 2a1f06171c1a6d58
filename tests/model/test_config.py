"""The shape of an encoder: which values are refused, and what follows from the others."""

from __future__ import annotations

import pytest

from embedkit.model.config import DenseConfig, EncoderConfig, SentenceConfig


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
        ({"position": "alibi"}, "position is 'alibi'; it must be one of learned, sinusoidal, rope"),
        ({"num_hidden_layers": 6, "num_hidden_groups": 4}, "6 is not a multiple of num_hidden_groups 4"),
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


@pytest.mark.parametrize("pooling", [(), ("mean", "median")])
def test_unknown_or_no_pooling_is_refused(pooling: tuple[str, ...]) -> None:
    with pytest.raises(
        ValueError, match="it must name some of mean, cls, max, last, weighted_mean, mean_sqrt_len"
    ):
        SentenceConfig(pooling=pooling)  # type: ignore[arg-type] # wrong values are the point
