from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import EvaluationError
from embedkit.evaluation.significance import bootstrap_interval, randomisation_test


def test_randomisation_by_hand() -> None:
    """1 + 2 + 3 = 6: of the 8 sign patterns only +++ and --- are as far from 0.

    3 + 1 - 2 = 2: the sums are ±6, ±4 (of 3 + 2 - 1), ±2 (of 3 + 1 - 2) and 0 twice, so 6 of 8 reach 2.
    """
    assert randomisation_test([1, 2, 3]).p_value == 2 / 8
    assert randomisation_test([3, 1, -2]).p_value == 6 / 8


def test_queries_without_a_difference_change_nothing() -> None:
    assert randomisation_test([1, 0, 2, 0, 3, 1e-17]) == randomisation_test([1, 2, 3])
    assert randomisation_test([0.0, 0.0]).p_value == 1.0


@settings(deadline=None)
@given(st.lists(st.integers(-10, 10).map(lambda number: number / 10), min_size=1, max_size=8))
def test_exact_randomisation_equals_the_slow_twin(differences: list[float]) -> None:
    sums = [
        abs(math.fsum(sign * each for sign, each in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    reached = sum(each >= abs(math.fsum(differences)) - 1e-9 for each in sums)
    assert randomisation_test(differences).p_value == pytest.approx(reached / len(sums))


def test_sixteen_differing_queries_are_exact_and_more_are_sampled() -> None:
    assert randomisation_test([0.1] * 16) == randomisation_test([0.1] * 16 + [0.0] * 9)
    assert randomisation_test([0.1] * 16).p_value == 2 / 2**16
    assert not randomisation_test([0.1] * 17, rounds=100).exact


def test_a_sampled_p_value_is_never_0() -> None:
    """No random pattern of 40 signs is all alike, so only the observed one counts: 1 / (1 + 1000)."""
    assert randomisation_test([0.1] * 40, rounds=1_000).p_value == 1 / 1_001


def test_sampled_and_exact_agree() -> None:
    differences = np.random.default_rng(2).normal(0.3, 1.0, 16)
    exact = randomisation_test(differences).p_value
    # A 17th query whose sign hardly weighs makes the test a sampled one.
    sampled = randomisation_test([*differences, 1e-9])
    assert not sampled.exact
    assert sampled.p_value == pytest.approx(
        exact, abs=5 * math.sqrt(exact * (1 - exact) / sampled.rounds) + 1e-4
    )


def test_blocks_do_not_change_the_number_of_rounds() -> None:
    assert randomisation_test(np.tile([0.1, -0.1], 3_000), rounds=1_500).p_value == 1.0


def test_the_same_seed_gives_the_same_figures() -> None:
    differences = np.random.default_rng(1).normal(0.1, 1.0, 30)
    assert randomisation_test(differences, seed=4, rounds=500) == randomisation_test(
        differences, seed=4, rounds=500
    )
    assert bootstrap_interval(differences, seed=4) == bootstrap_interval(differences, seed=4)
    assert bootstrap_interval(differences, seed=4) != bootstrap_interval(differences, seed=5)


def test_the_interval_is_that_of_the_normal_for_many_queries() -> None:
    """Mean 0.1 ± 1.96 standard errors, to a tenth of one."""
    differences = np.random.default_rng(7).normal(0.1, 0.5, 2_000)
    found = bootstrap_interval(differences)
    error = differences.std() / math.sqrt(2_000)
    assert found.low == pytest.approx(differences.mean() - 1.96 * error, abs=error / 10)
    assert found.high == pytest.approx(differences.mean() + 1.96 * error, abs=error / 10)


def test_a_wider_confidence_holds_the_narrower() -> None:
    differences = np.random.default_rng(7).normal(0.1, 0.5, 50)
    wide, narrow = (
        bootstrap_interval(differences, confidence=0.99),
        bootstrap_interval(differences, confidence=0.8),
    )
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_query_has_an_interval_of_one_point() -> None:
    assert bootstrap_interval([0.25], rounds=10).low == bootstrap_interval([0.25], rounds=10).high == 0.25


def test_what_cannot_be_tested_is_refused() -> None:
    for test in (randomisation_test, bootstrap_interval):
        with pytest.raises(EvaluationError, match=r"there is no query that both sides answered"):
            test([])
        with pytest.raises(EvaluationError, match=r"difference 2 of 3 is nan; it must be finite"):
            test([1.0, math.nan, 2.0])
        with pytest.raises(ValueError, match=r"differences have shape \(1, 2\); they must be \(Q,\)"):
            test([[1.0, 2.0]])
        with pytest.raises(ValueError, match=r"rounds is 0; it must be at least 1"):
            test([1.0], rounds=0)
    with pytest.raises(ValueError, match=r"confidence is 95; it must lie between 0 and 1"):
        bootstrap_interval([1.0], confidence=95)
