"""The kernels that score stored tokens, against sums in double precision, for every set of instructions that runs here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from embedkit.native import dispatch
from embedkit.native.maxsim import StoredTokens, TokenQuery

if reason := dispatch.why_not_here("fp32"):
    pytest.skip(reason, allow_module_level=True)

SHAPES = [
    (16, 1, 4),
    (128, 32, 4),
    (96, 33, 2),
    (5, 7, 4),
    (1, 3, 2),
    (200, 70, 2),
]  # D, Tq, numbers in a byte


class Case(NamedTuple):
    stored: StoredTokens
    ids: NDArray[np.uint16]
    codes: NDArray[np.uint8]
    starts: NDArray[np.int64]
    query: NDArray[np.float32]
    vectors: NDArray[np.float64]  # what is stored, of unit length
    centroids: NDArray[np.float32]


def make(dimension: int, tokens: int, per_byte: int) -> Case:
    rng = np.random.default_rng(dimension)
    counts = np.array([1, 47, 48, 49, 7, 100, 6])
    starts = np.concatenate([[0], np.cumsum(counts)])
    centroids = rng.standard_normal((300, dimension)).astype(np.float32)
    scales = rng.random(dimension).astype(np.float32)
    table = rng.standard_normal((256, per_byte)).astype(np.float32)
    ids = rng.integers(0, 300, counts.sum()).astype(np.uint16)
    codes = rng.integers(0, 256, (len(ids), 1 - (-dimension // per_byte))).astype(np.uint8)
    gains = rng.random(256).astype(np.float32)
    numbers = table[codes[:, 1:]].reshape(len(ids), -1)[:, :dimension].astype(np.float64)
    vectors = numbers * scales * gains[codes[:, :1]] + centroids[ids]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = rng.standard_normal((tokens, dimension)).astype(np.float32)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    return Case(StoredTokens(centroids, scales, table, gains), ids, codes, starts, query, vectors, centroids)


def sums(vectors: NDArray[np.float64], case: Case) -> NDArray[np.float64]:
    products = vectors @ case.query.astype(np.float64).T
    return np.asarray(np.maximum.reduceat(products, case.starts[:-1], axis=0).sum(axis=1))


@pytest.fixture(params=dispatch.levels_here())
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.CPU, request.param)


@pytest.mark.parametrize(("dimension", "tokens", "per_byte"), SHAPES)
def test_scores_are_maxsim_of_what_is_stored(level: None, dimension: int, tokens: int, per_byte: int) -> None:
    case = make(dimension, tokens, per_byte)
    query = TokenQuery(case.stored, case.query)
    positions = np.array([6, 0, 5, 3, 2, 1, 4, 5])
    found = query.score_tokens(case.ids, case.codes, case.starts, positions)
    np.testing.assert_allclose(found, sums(case.vectors, case)[positions], atol=2e-6 * tokens + 1e-6)
    one_by_one = [
        query.score_tokens(case.ids, case.codes, case.starts, positions[at : at + 1]) for at in range(8)
    ]
    np.testing.assert_array_equal(np.concatenate(one_by_one), found)  # whatever stands beside
    assert len(query.score_tokens(case.ids, case.codes, case.starts, positions[:0])) == 0


@pytest.mark.parametrize(("dimension", "tokens", "per_byte"), SHAPES)
def test_centroids_stand_in_for_tokens(level: None, dimension: int, tokens: int, per_byte: int) -> None:
    case = make(dimension, tokens, per_byte)
    query = TokenQuery(case.stored, case.query)
    products = query.products()
    exact = case.centroids.astype(np.float64) @ case.query.astype(np.float64).T
    np.testing.assert_allclose(products[:, :tokens], exact, atol=1e-5)
    assert (products[:, tokens:] == 0).all()
    found = query.score_centroids(products, case.ids, case.starts, np.arange(7))
    np.testing.assert_allclose(
        found, sums(case.centroids[case.ids].astype(np.float64), case), atol=1e-5 * tokens
    )


def test_what_a_kernel_would_read_beyond_is_refused() -> None:
    case = make(16, 3, 4)
    query = TokenQuery(case.stored, case.query)
    positions = np.arange(7)
    with pytest.raises(ValueError, match="positions from 0 to 7 of 7 rows"):
        query.score_tokens(case.ids, case.codes, case.starts, np.arange(8))
    with pytest.raises(ValueError, match="positions from -1"):
        query.score_centroids(query.products(), case.ids, case.starts, positions - 1)
    with pytest.raises(ValueError, match="258 tokens of which 257 are there"):
        query.score_centroids(query.products(), case.ids[:-1], case.starts, positions)
    with pytest.raises(ValueError, match="does not fit"):
        query.score_tokens(case.ids, case.codes[:, :2].copy(), case.starts, positions)
    with pytest.raises(ValueError, match="does not fit"):
        query.score_tokens(case.ids.astype(np.int64), case.codes, case.starts, positions)
    with pytest.raises(ValueError, match=r"a query of \(3, 8\) does not fit vectors of 16 numbers"):
        TokenQuery(case.stored, case.query[:, :8])
    with pytest.raises(ValueError, match="a query of"):
        TokenQuery(case.stored, case.query[:0])
    with pytest.raises(ValueError, match="do not fit"):
        StoredTokens(
            case.centroids, np.ones(15, np.float32), np.ones((256, 4), np.float32), np.ones(256, np.float32)
        )
