"""Cosines that mean nothing."""

import math

import pytest

from embedkit.data.records import Hit
from embedkit.retrieval.noise import CosineNoise, is_weak, without_weak


def test_limits_follow_from_mean_and_deviation() -> None:
    """Mean .1 and deviation .05: the floor .2; among 100 texts .1 + .05 * sqrt(2 ln 100) = .252."""
    noise = CosineNoise(0.1, 0.05)
    assert noise.floor == pytest.approx(0.2)
    assert noise.low == 0
    assert CosineNoise(0.75, 0.03).low == pytest.approx(0.69)
    assert noise.chance(100) == pytest.approx(0.1 + 0.05 * math.sqrt(2 * math.log(100)))
    assert noise.chance(1) == noise.chance(0) == 0.1


def test_noise_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="mean 2 and deviation 0 of cosines must be from -1 to 1"):
        CosineNoise(2, 0)


@pytest.mark.parametrize(
    ("scores", "weak"),
    [
        ({"dense": 0.19}, True),
        ({"dense": 0.2}, False),
        ({"dense": 0.1, "text": 3.0}, False),
        ({"dense": 0.1, "rerank": -2.0}, False),
        ({"text": 1.0}, False),
        ({}, False),
    ],
)
def test_a_hit_is_weak_where_only_meaning_found_it_and_hardly(scores: dict[str, float], weak: bool) -> None:
    hit = Hit("a", 0.1, scores=scores)
    assert is_weak(hit, 0.2) is weak
    assert without_weak([hit], 0.2) == ([] if weak else [hit])
