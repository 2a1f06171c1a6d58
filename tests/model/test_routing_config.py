"""The shape of a mixture of experts: which values are refused, and what follows from the others."""

from __future__ import annotations

import pytest

from embedkit.model.routing_config import ExpertsConfig
from tests.tiny import tiny_config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"num_experts_per_tok": 9},
            "num_experts_per_tok is 9; there are 8 experts. Choose from 1 to 8",
        ),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok is 0; there are 8 experts"),
        ({"num_experts": 1, "num_experts_per_tok": 1}, "num_experts is 1; there must be at least 2"),
        (
            {"capacity_factor": 0.0},
            r"capacity_factor is 0; it must be above 0, such as 1\.25, or none, which drops no token",
        ),
        ({"capacity_factor": float("inf")}, "capacity_factor is inf; it must be above 0"),
        (
            {"num_experts_per_tok": 1, "norm_topk_prob": True},
            "norm_topk_prob is true with num_experts_per_tok 1: the weight would always be 1",
        ),
        ({"every_n_layers": 0}, "every_n_layers is 0; it must be at least 1"),
        ({"intermediate_size": 0}, "intermediate_size is 0; it must be at least 1"),
        ({"shared_intermediate_size": -1}, "shared_intermediate_size is -1; it must be at least 0"),
    ],
)
def test_experts_that_cannot_be_built_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExpertsConfig(**fields)  # type: ignore[arg-type] # wrong values are the point


def test_a_pattern_that_gives_no_layer_experts_is_refused() -> None:
    with pytest.raises(ValueError, match="every_n_layers is 3; of 2 layers none would have experts"):
        tiny_config(experts=ExpertsConfig(every_n_layers=3))


def test_the_capacity_by_hand() -> None:
    """1.25 · 2 · 32 / 8 = 10; 1.25 · 2 · 3 / 8 = .94, of which a whole token is left; 1.1 · 1 · 80 / 8 is 11, not 12."""
    assert ExpertsConfig(capacity_factor=1.25).capacity(32) == 10
    assert ExpertsConfig(capacity_factor=1.25).capacity(3) == 1
    assert ExpertsConfig(capacity_factor=1.1, num_experts_per_tok=1).capacity(80) == 11
    assert ExpertsConfig().capacity(32) == 32


def test_what_is_routed_is_said() -> None:
    assert tiny_config().routed is None
    assert tiny_config(experts=ExpertsConfig()).routed == "8 experts"
