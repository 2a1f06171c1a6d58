"""How strong a hit is."""

from __future__ import annotations

import math

import pytest

from embedkit.retrieval.strength import (
    CHANCE,
    MOST_TEXTS,
    TEXT_SHARES,
    TYPICAL_DEVIATIONS,
    CosineNoise,
    Scale,
    Yardstick,
)

COSINES = Scale(0.2, 0.6)


def test_a_scale_goes_from_chance_to_what_is_typical() -> None:
    assert [COSINES.strength(cosine) for cosine in (-1, 0.2, 0.4, 0.6, 1)] == pytest.approx([0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("typical", [0.2, 0.1, math.nan])
def test_a_scale_without_length_is_refused(typical: float) -> None:
    with pytest.raises(ValueError, match=r"chance gives 0\.2; what is typical must be above it"):
        Scale(0.2, typical)


def test_chance_grows_with_the_number_of_texts_up_to_what_was_measured() -> None:
    """Mean .1 and deviation .05, 100 texts: .1 + CHANCE * .05 * sqrt(2 ln 100)."""
    noise = CosineNoise(0.1, 0.05)
    assert noise.scale(100).chance == pytest.approx(0.1 + CHANCE * 0.05 * 3.034854)
    assert noise.scale(1).chance == noise.scale(0).chance == 0.1
    assert noise.scale(10**9) == noise.scale(MOST_TEXTS)
    scale = noise.scale(7)
    assert scale.typical - scale.chance == pytest.approx(TYPICAL_DEVIATIONS * 0.05)


@pytest.mark.parametrize(
    ("mean", "deviation"), [(2, 0.1), (0.1, 0), (0.1, 2), (math.nan, 0.1), (0.1, math.nan)]
)
def test_noise_out_of_range_is_refused(mean: float, deviation: float) -> None:
    with pytest.raises(ValueError, match="of cosines must be from -1 to 1, and their deviation"):
        CosineNoise(mean, deviation)


def test_one_measure_is_taken_as_it_is() -> None:
    assert Yardstick(cosines=COSINES).strength({"dense": 0.4}) == pytest.approx(0.5)
    half = (TEXT_SHARES.chance + TEXT_SHARES.typical) / 2
    assert Yardstick(text_limit=10.0).strength({"text": 10 * half}) == pytest.approx(0.5)
    assert Yardstick().strength({"text": 3.0}) == 0  # nothing can be reached


def test_of_both_it_is_their_mean_by_weight() -> None:
    """Cosine .3 and BM25 2 of 10: .25, on a scale from .1 to (.6 + what is typical of words) / 2; by three to one .275, from .15."""
    scores = {"dense": 0.3, "text": 2.0}
    words = TEXT_SHARES.typical
    equal = Yardstick(cosines=COSINES, text_limit=10.0)
    assert equal.strength(scores) == pytest.approx(0.15 / ((0.6 + words) / 2 - 0.1))
    uneven = Yardstick(cosines=COSINES, text_limit=10.0, weights=(3.0, 1.0))
    assert uneven.strength(scores) == pytest.approx(0.125 / ((1.8 + words) / 4 - 0.15))
    assert equal.strength({"text": 2.0}) == 0
    assert equal.strength({"dense": 1.0, "text": 10.0}) == 1


@pytest.mark.parametrize(
    ("scores", "chance"),
    [
        ({"dense": 0.2}, True),
        ({"dense": 0.21}, False),
        ({"dense": 0.1, "text": 10 * TEXT_SHARES.chance}, True),
        ({"dense": 0.1, "text": 10 * TEXT_SHARES.chance + 0.1}, False),
        ({"text": 0.5}, True),
        ({"text": 5.0}, False),
        ({}, True),
    ],
)
def test_a_hit_is_chance_where_neither_meaning_nor_words_say_otherwise(
    scores: dict[str, float], chance: bool
) -> None:
    assert Yardstick(cosines=COSINES, text_limit=10.0).is_chance(scores) is chance
