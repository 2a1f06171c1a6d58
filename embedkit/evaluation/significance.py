"""Is a difference between two systems more than chance? Pure functions of per-query differences, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedkit.errors import EvaluationError

# 2**16 sign patterns take milliseconds; each further query doubles that.
MOST_EXACT_QUERIES = 16
# Values of one metric that differ by rounding alone are equal.
SAME = 1e-12
# Memory of one block of resampled queries, in float64 cells.
BLOCK_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class RandomisationTest:
    """`p_value` of no difference, two-sided; `exact`: from all `rounds` sign patterns, not from a sample."""

    p_value: float
    exact: bool
    rounds: int


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the mean difference lies with the given confidence, by `rounds` bootstrap samples."""

    low: float
    high: float
    confidence: float
    rounds: int


def randomisation_test(differences: ArrayLike, *, rounds: int = 100_000, seed: int = 0) -> RandomisationTest:
    """Test whether the sign of each query's difference could as well be chance.

    Were the two systems alike, each difference could have either sign. The p-value is the share of sign patterns
    whose sum is at least as far from 0 as the observed one: all patterns for up to 16 differing queries, else
    `rounds` random ones, and then (1 + hits) / (1 + rounds), since the observed pattern is one of them.

    The sum of 1, 2, 3 is 6; of the 8 patterns only +++ and --- reach it, 2/8:

    >>> randomisation_test([1, 2, 3, 0])
    RandomisationTest(p_value=0.25, exact=True, rounds=8)

    Shapes:
        differences: (Q,) finite
    Source: Fisher's randomisation test as in Smucker, Allan and Carterette 2007,
        https://doi.org/10.1145/1321440.1321528; the +1 is of Phipson and Smyth 2010,
        https://doi.org/10.2202/1544-6115.1585.
    """
    row = _checked(differences, rounds)
    row = row[np.abs(row) > SAME]  # a zero has no sign to flip
    observed = abs(row.sum()) - SAME * np.abs(row).sum()
    if len(row) <= MOST_EXACT_QUERIES:
        patterns = np.arange(2 ** len(row))[:, None] >> np.arange(len(row)) & 1  # (2**Q, Q)
        sums = (2.0 * patterns - 1.0) @ row
        return RandomisationTest(float(np.mean(np.abs(sums) >= observed)), True, len(patterns))
    generator = np.random.default_rng(seed)
    hits = 0
    for count in _blocks(rounds, len(row)):
        packed = generator.integers(0, 256, (count, -(-len(row) // 8)), np.uint8)
        flips = np.unpackbits(packed, axis=1, count=len(row)).astype(np.float64)
        sums = 2.0 * (flips @ row) - row.sum()
        hits += int(np.sum(np.abs(sums) >= observed))
    return RandomisationTest((1 + hits) / (1 + rounds), False, rounds)


def bootstrap_interval(
    differences: ArrayLike, *, confidence: float = 0.95, rounds: int = 10_000, seed: int = 0
) -> Interval:
    """Tell where the mean difference would lie over other queries of the same kind: the percentile bootstrap.

    Shapes:
        differences: (Q,) finite
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13; Sakai 2006,
        https://doi.org/10.1145/1148170.1148261.
    """
    row = _checked(differences, rounds)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1, as 0.95")
    generator = np.random.default_rng(seed)
    means = [
        row[generator.integers(0, len(row), (count, len(row)))].mean(axis=1)
        for count in _blocks(rounds, len(row))
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(low), float(high), confidence, rounds)


def _checked(differences: ArrayLike, rounds: int) -> NDArray[np.float64]:
    row = np.asarray(differences, np.float64)
    if row.ndim != 1:
        raise ValueError(f"differences have shape {row.shape}; they must be (Q,)")
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; it must be at least 1")
    if not len(row):
        raise EvaluationError("there is no query that both sides answered; nothing can be compared")
    if not np.isfinite(row).all():
        place = int(np.argmin(np.isfinite(row)))
        raise EvaluationError(
            f"difference {place + 1} of {len(row)} is {row[place]}; it must be finite. Look at the two values"
        )
    return row


def _blocks(rounds: int, queries: int) -> list[int]:
    """Cut the rounds into blocks that fit into memory."""
    size = max(1, BLOCK_CELLS // queries)
    return [size] * (rounds // size) + ([rounds % size] if rounds % size else [])
