"""What every search works with: candidates, and what a score is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .storage.codes import FloatArray, RowArray
from .types import Metric

Floating = npt.NDArray[Any]  # Any: float32 or, where a score is made final, float64
Scored = tuple[FloatArray, RowArray]  # (N,) each: scores and rows
Mask = npt.NDArray[np.bool_]  # by row number: may the row be returned?

_LONE_ROWS = 512  # of which the differences from a query stay in the cache


@dataclass(frozen=True)
class Candidates:
    """The rows that may be the best, by query; a row of -1 (score -inf) is no candidate.

    Shapes:
        scores: (Q, K) float32, best first; rows: (Q, K) int64
    """

    scores: FloatArray
    rows: RowArray

    @staticmethod
    def none(num_queries: int, k: int) -> Candidates:
        return Candidates(
            np.full((num_queries, k), -np.inf, np.float32), np.full((num_queries, k), -1, np.int64)
        )

    @staticmethod
    def of(found: Sequence[Scored]) -> Candidates:
        """Return what was found for each query, best first, as arrays as wide as the longest."""
        padded = Candidates.none(len(found), max(len(scores) for scores, _ in found))
        for number, (scores, rows) in enumerate(found):
            padded.scores[number, : len(scores)], padded.rows[number, : len(rows)] = scores, rows
        return padded

    def merge(self, other: Candidates, k: int) -> Candidates:
        """Return the best k of two sets without a row in common."""
        scores = np.concatenate([self.scores, other.scores], axis=1)
        rows = np.concatenate([self.rows, other.rows], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return Candidates(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))

    def replace(self, queries: RowArray, other: Candidates) -> Candidates:
        """Return these candidates, but for some queries (by position) the other's."""
        replaced = Candidates.none(len(self.rows), max(self.rows.shape[1], other.rows.shape[1]))
        replaced.scores[:, : self.rows.shape[1]], replaced.rows[:, : self.rows.shape[1]] = (
            self.scores,
            self.rows,
        )
        replaced.scores[queries], replaced.rows[queries] = -np.inf, -1
        replaced.scores[queries, : other.rows.shape[1]] = other.scores
        replaced.rows[queries, : other.rows.shape[1]] = other.rows
        return replaced


def best_and_ties(scores: FloatArray, rows: RowArray, k: int) -> Scored:
    """Return the best k and all that tie with the last of them, best first."""
    if len(scores) > k:
        kept = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
        scores, rows = scores[kept], rows[kept]
    order = np.argsort(-scores, kind="stable")
    return scores[order], rows[order]


@dataclass(frozen=True)
class Scorer:
    """What a score is: the inner product, or for l2 minus the squared distance.

    With F `fields` it is Σ q_f·d_f / Σ |q_f| |d_f| over the F parts of both vectors: the mean of the cosines of those fields that the
    document has, weighted by the lengths of the query's parts. The lengths of the whole vectors do not count.
    """

    metric: Metric
    fields: int = 0

    def tile(self, queries: FloatArray, vectors: FloatArray) -> FloatArray:
        """Score (Q, E) against (T, E) as (Q, T), fast and good to about six digits."""
        scores: FloatArray
        if self.fields:
            scores = queries @ vectors.T
            scores /= _not_zero(self._lengths(queries) @ self._lengths(vectors).T)
            return scores
        if len(queries) == 1:
            return self._lone(queries[0], vectors)[None]
        scores = queries @ vectors.T
        if self.metric == "l2":
            scores *= 2
            scores -= np.einsum("te,te->t", vectors, vectors)
            scores -= np.einsum("qe,qe->q", queries, queries)[:, None]
        return scores

    def _lone(self, query: FloatArray, vectors: FloatArray) -> FloatArray:
        """Score (E,) against (T, E) as (T,).

        Not by the BLAS, which on a busy machine waits 8 ms for its threads, and alone is a third slower.
        """
        scores: FloatArray
        if self.metric != "l2":
            scores = np.einsum("te,e->t", vectors, query)
            return scores
        scores = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), _LONE_ROWS):
            differences = vectors[start : start + _LONE_ROWS] - query
            np.einsum("te,te->t", differences, differences, out=scores[start : start + _LONE_ROWS])
        return -scores

    def pairs(self, queries: FloatArray, vectors: FloatArray) -> FloatArray:
        """Score (Q, E) against the (Q, K, E) of each query as (Q, K), in double precision.

        A product of a line and a column is a dot product of its own: equal vectors have equal scores, whatever stands
        beside them.
        """
        doubles, ours = vectors.astype(np.float64), queries.astype(np.float64)[:, None, :]
        if self.metric == "l2":
            doubles -= ours
            ours = -doubles
        products = np.matmul(doubles[:, :, None, :], ours[..., None])[:, :, 0, 0]  # (Q, K)
        if self.fields:
            weights = self._lengths(queries.astype(np.float64))
            products /= _not_zero(np.einsum("qf,qkf->qk", weights, self._lengths(doubles)))
        return np.asarray(products, np.float32)

    def _lengths(self, vectors: Floating) -> Floating:
        """Return the lengths of the parts of vectors: (..., F·E) -> (..., F)."""
        parts = vectors.reshape(*vectors.shape[:-1], self.fields, -1)
        lengths: Floating = np.sqrt(np.einsum("...e,...e->...", parts, parts))
        return lengths

    def error(self, queries: FloatArray, best: FloatArray) -> FloatArray:
        """Bound how far `tile` may be from `pairs`, by query.

        Shapes:
            queries: (Q, E); best: (Q,) the best score of each
            returns: (Q,)
        """
        if self.metric == "cosine":
            return np.full(len(queries), 1e-5, np.float32)
        # The norms of the stored vectors are not known; those of the best are within reach of the scores.
        norms = np.einsum("qe,qe->q", queries, queries)
        return np.asarray(1e-5 * np.maximum(np.maximum(norms, np.abs(best)), 1e-30), np.float32)


def _not_zero(divisors: Floating) -> Floating:
    """Where a query and a vector share no field, their product is 0 and stays it."""
    result: Floating = np.maximum(divisors, np.finfo(divisors.dtype).tiny)
    return result
