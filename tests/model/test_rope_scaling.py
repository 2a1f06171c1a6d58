"""Scaled rotary positions: frequencies worked out by hand, texts of several lengths in a batch, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from embedkit.model.config import EncoderConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.positions import rotary_table
from embedkit.model.rope_config import RopeScaling, RopeScalingConfig
from tests.tiny import FAMILY_SHAPES, tiny_config


def scaled(kind: RopeScaling, **fields: float) -> RopeScalingConfig:
    return RopeScalingConfig(kind=kind, factor=4.0, original_max_position_embeddings=16, **fields)  # type: ignore[arg-type] # numbers of any field


def frequencies(scaling: RopeScalingConfig, length: int = 2) -> list[float]:
    """Frequencies of heads of 8 with the base 100: unscaled 1, 100^(-1/4), 100^(-1/2), 100^(-3/4)."""
    cos, sin = rotary_table(length, head_size=8, theta=100.0, device=torch.device("cpu"), scaling=scaling)
    return [float(each) for each in torch.atan2(sin[1], cos[1])[:4]]


def test_llama3_divides_what_turns_less_than_once_and_in_part_what_turns_less_than_four_times() -> None:
    """In 16 tokens they turn 2.546, 0.805, 0.255 and 0.081 times; the first keeps (2.546 - 1) / 3 of itself."""
    keeps = (16 / (2 * math.pi) - 1) / 3
    wanted = [keeps + (1 - keeps) / 4, 100**-0.25 / 4, 0.1 / 4, 100**-0.75 / 4]
    assert frequencies(scaled("llama3")) == pytest.approx(wanted, rel=1e-5)


def test_yarn_divides_along_a_ramp_and_multiplies_queries_and_keys() -> None:
    """Two turns are made at place 8·ln(16/4π)/(2·ln 100) = 0.21, half a turn at 1.41: bounds 0 and 2."""
    scaling = scaled("yarn", beta_fast=2.0, beta_slow=0.5, attention_factor=1.5)
    wanted = [1.0, 100**-0.25 * (0.5 + 0.5 / 4), 0.1 / 4, 100**-0.75 / 4]
    assert frequencies(scaling) == pytest.approx(wanted, rel=1e-5)
    cos, _ = rotary_table(1, head_size=8, theta=100.0, device=torch.device("cpu"), scaling=scaling)
    assert cos.tolist() == [[1.5] * 8]


def test_dynamic_takes_a_larger_base_for_texts_beyond_the_first_length() -> None:
    """A text of 32 tokens is twice as long as 16: the base is multiplied by (4·2 - 3)^(8/6)."""
    base = 100 * 5 ** (8 / 6)
    assert frequencies(scaled("dynamic"), 16) == pytest.approx([1, 100**-0.25, 0.1, 100**-0.75], rel=1e-5)
    assert frequencies(scaled("dynamic"), 32) == pytest.approx([base ** (-i / 4) for i in range(4)], rel=1e-5)


def test_beside_a_longer_text_a_text_has_the_vectors_that_it_has_alone() -> None:
    config = tiny_config(**FAMILY_SHAPES["llama"] | {"rope_scaling": scaled("dynamic")})
    torch.manual_seed(0)
    encoder = TransformerEncoder(config).eval()
    ids = torch.randint(5, config.vocab_size, (3, 60))
    lengths = [60, 21, 9]
    mask = torch.arange(60) < torch.tensor(lengths)[:, None]
    with torch.inference_mode():
        padded = encoder(ids, mask)
        for row, length in enumerate(lengths):
            alone = encoder(ids[row : row + 1, :length])[0]
            torch.testing.assert_close(padded[row, :length], alone, rtol=0, atol=2e-6)
    with pytest.raises(
        ValueError, match="num_keys are given for a model with rotary positions that are scaled by"
    ):
        encoder.forward_packed(ids[0], [60], num_keys=[50])


def test_a_text_may_be_as_long_as_the_scaling_reaches() -> None:
    config = tiny_config(**FAMILY_SHAPES["llama"], max_position_embeddings=16)
    assert (config.usual_tokens, config.max_tokens) == (16, 96)  # 4 · 24


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"factor": 0.5}, "factor of the rotary positions is 0.5; it must be at least 1"),
        ({"original_max_position_embeddings": 0}, "original_max_position_embeddings is 0"),
        ({"kind": "longrope"}, "rope_scaling.kind is 'longrope'; it must be one of yarn, llama3, dynamic"),
        ({"beta_slow": 40.0}, "beta_slow is 40.0; it must be below beta_fast, 32.0"),
        ({"attention_factor": 0.0}, "attention_factor is 0.0; it must be above 0"),
        ({"low_freq_factor": 4.0}, "low_freq_factor is 4.0; it must be below high_freq_factor"),
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, object], message: str) -> None:
    usual: dict[str, object] = {"kind": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}
    with pytest.raises(ValueError, match=message):
        RopeScalingConfig(**(usual | fields))  # type: ignore[arg-type] # one of them is wrong


def test_scaling_goes_with_rotary_positions_alone() -> None:
    with pytest.raises(ValueError, match="rope_scaling goes with position 'rope' and rope_factor 1 alone"):
        EncoderConfig(rope_scaling=scaled("yarn"))
    for fields in ({"global_rope_theta": 1.0}, {"head_dim": 2}):
        with pytest.raises(
            ValueError, match="rope_scaling needs global_rope_theta above 1 and heads of more than 2"
        ):
            tiny_config(**FAMILY_SHAPES["llama"] | fields)
