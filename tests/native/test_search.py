"""The kernels that score stored vectors, against sums in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedkit.native import search
from embedkit.native.search import StoredVectors, can_search

if not can_search():
    pytest.skip("the kernels do not run on this processor or were not compiled", allow_module_level=True)

DIMENSIONS = (1, 7, 16, 24, 64, 100, 384)
TYPES = (np.float32, np.float16, np.uint8)


def stored(rows: int, dimension: int, kind: type[Any]) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    rng = np.random.default_rng(dimension)
    if kind is np.uint8:
        codes = rng.integers(1, 256, (rows, dimension)).astype(np.uint8)
        return codes, rng.random(dimension, dtype=np.float32) / np.float32(64)
    return rng.standard_normal((rows, dimension)).astype(kind), None


def values_of(codes: NDArray[Any], scales: NDArray[np.float32] | None) -> NDArray[np.float64]:
    plain = codes.astype(np.float32)
    return (plain if scales is None else (plain - 128) * scales).astype(np.float64)


def all_scores(
    queries: NDArray[np.float32], values: NDArray[np.float64], squared: bool
) -> NDArray[np.float64]:
    if squared:
        return np.asarray(-((queries[:, None].astype(np.float64) - values) ** 2).sum(axis=2))
    return np.asarray(queries.astype(np.float64) @ values.T)


CASES = [
    pytest.param(kind, squared, dimension, id=f"{np.dtype(kind)}-{'l2' if squared else 'dot'}-{dimension}")
    for kind in TYPES
    for squared in (False, True)
    for dimension in DIMENSIONS
]


@pytest.mark.parametrize(("kind", "squared", "dimension"), CASES)
def test_pairs_are_the_double_sums_rounded_once(kind: type[Any], squared: bool, dimension: int) -> None:
    codes, scales = stored(50, dimension, kind)
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((5, dimension)).astype(np.float32)
    positions = rng.integers(-1, 50, (5, 9))
    scores = np.full((5, 9), -7, np.float32)
    StoredVectors(codes, scales, squared=squared).score_pairs(queries, positions, scores)
    exact = np.take_along_axis(all_scores(queries, values_of(codes, scales), squared), positions, axis=1)
    expected = np.where(positions >= 0, exact, -7).astype(np.float32)
    # A sum that cancels keeps the doubles' own error; else one rounding to float is all that may differ.
    np.testing.assert_allclose(scores, expected, rtol=2e-7, atol=1e-13 * dimension)


@pytest.mark.parametrize("num_queries", [1, 6, 70])  # few are multiplied one by one
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("kind", "squared", "dimension"), CASES)
def test_a_scan_finds_the_best_rows_that_are_allowed_above_the_floor(
    kind: type[Any],
    squared: bool,
    dimension: int,
    threads: int,
    num_queries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "THREADS_WORTH", 0)
    monkeypatch.setattr(search, "RANGE_ROWS", 110)  # several ranges, each of more than one chunk and a rest
    codes, scales = stored(501, dimension, kind)
    rng = np.random.default_rng(2)
    queries = rng.standard_normal((num_queries, dimension)).astype(np.float32)
    exact = all_scores(queries, values_of(codes, scales), squared)
    k = 6
    floor = np.full(num_queries, -np.inf, np.float32)
    floor[::2] = np.sort(exact, axis=1)[::2, -3] - 1e-4  # three are above it, or what ties with them
    for allowed in (None, rng.random(501) < 0.3):
        seen: list[tuple[int, int]] = []
        scores, found = StoredVectors(codes, scales, squared=squared).scan(
            queries,
            k,
            floor=floor,
            allowed=allowed,
            threads=threads,
            check=lambda first, last: seen.append((first, last)),  # noqa: B023  # called at once
        )
        assert sorted(seen) == [(0, 110), (110, 220), (220, 330), (330, 440), (440, 501)]
        assert scores.shape == found.shape == (num_queries, k * threads)
        there = found >= 0
        places = np.where(there, found, -1 - np.arange(k * threads))  # what is not there differs, too
        assert (np.diff(np.sort(places, axis=1), axis=1) > 0).all()  # no row twice
        assert allowed is None or allowed[found[there]].all()
        of_found = np.take_along_axis(exact, np.where(there, found, 0), axis=1)
        np.testing.assert_allclose(scores[there], of_found[there], rtol=1e-5, atol=1e-4)
        assert (scores[there] > np.broadcast_to(floor[:, None], found.shape)[there]).all()
        assert (scores[~there] == -np.inf).all()
        permitted = exact if allowed is None else np.where(allowed, exact, -np.inf)
        wanted = -np.sort(-np.where(permitted > floor[:, None] + 2e-4, permitted, -np.inf), axis=1)[:, :k]
        sure = wanted > -np.inf
        best = -np.sort(-scores, axis=1)[:, :k]
        np.testing.assert_allclose(best[sure], wanted[sure], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_scan_that_fails_in_one_thread_ends_in_all(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "THREADS_WORTH", 0)
    monkeypatch.setattr(search, "RANGE_ROWS", 8)
    codes, _ = stored(80_000, 24, np.float32)
    seen: list[int] = []

    def check(first: int, last: int) -> None:
        seen.append(first)
        if first == 80:
            raise OSError("the block is damaged")

    vectors = StoredVectors(codes, None, squared=False)
    floor = np.full(2, -np.inf, np.float32)
    with pytest.raises(OSError, match="the block is damaged"):
        vectors.scan(np.ones((2, 24), np.float32), 3, floor=floor, threads=threads, check=check)
    assert len(seen) < 5_000  # of 10,000 ranges


def test_a_scan_for_more_rows_than_there_are_returns_all() -> None:
    codes, _ = stored(20, 24, np.float32)
    queries = np.random.default_rng(3).standard_normal((2, 24)).astype(np.float32)
    scores, found = StoredVectors(codes, None, squared=False).scan(
        queries, 50, floor=np.full(2, -np.inf, np.float32)
    )
    for query in range(2):
        assert sorted(found[query].tolist()) == [-1] * 30 + list(range(20))
        assert np.isinf(scores[query]).sum() == 30


def test_arrays_that_do_not_fit_are_refused_before_a_kernel_reads_beyond_them() -> None:
    codes, _ = stored(20, 24, np.float32)
    vectors = StoredVectors(codes, None, squared=False)
    queries = np.ones((2, 24), np.float32)
    positions, scores = np.zeros((2, 3), np.int64), np.zeros((2, 3), np.float32)
    wrongs: list[NDArray[Any]] = [queries[:, :8].copy(), queries.astype(np.float64), queries[:, ::-1]]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="does not fit"):
            vectors.score_pairs(wrong, positions, scores)
        with pytest.raises(ValueError, match="does not fit"):
            vectors.scan(wrong, 3, floor=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="does not fit"):
        vectors.score_pairs(queries, positions, scores[:1])
    with pytest.raises(ValueError, match="does not fit"):
        vectors.scan(queries, 3, floor=np.zeros(2, np.float32), allowed=np.ones(19, np.bool_))
