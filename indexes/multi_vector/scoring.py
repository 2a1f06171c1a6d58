"""MaxSim of one query with the rows of a segment: by what is stored of each token, or by the centroids alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from embedkit.native.maxsim import TokenQuery, can_score
from embedkit.native.threads import on_threads

from ..candidates import Floating
from ..storage.codes import FloatArray, RowArray
from .codebook import Codebook
from .segment import TokenSegment

_CHUNK_ROWS = 512  # decoded at a time: 20 MB for passages of 80 tokens
_RANGE_ROWS = 1024  # that a thread scores at a time


class QueryScorer:
    """The token vectors of one query, and what scores rows by them.

    A score is the sum over the query's tokens of the largest cosine with any token of the row, in float32.
    Source: Khattab and Zaharia 2020, https://arxiv.org/abs/2004.12832, eq. 3.
    """

    def __init__(self, query: FloatArray, codebook: Codebook) -> None:
        """Take a query of (Tq, D) vectors of unit length."""
        self._query, self._codebook = np.ascontiguousarray(query), codebook
        self._native = TokenQuery(codebook.native, self._query) if can_score() else None
        self.table = (
            self._native.products() if self._native else codebook.centroids @ self._query.T
        )  # (C, Tq or more)

    @property
    def num_tokens(self) -> int:
        return len(self._query)

    def nearest(self, nprobe: int) -> RowArray:
        """Return the centroids that are among the `nprobe` nearest of any token, ascending."""
        nprobe = min(nprobe, len(self.table))
        products = np.ascontiguousarray(self.table[:, : self.num_tokens].T)  # (Tq, C)
        best = np.argpartition(products, -nprobe, axis=1)[:, -nprobe:]
        return np.unique(best).astype(np.int64)

    def by_centroids(self, segment: TokenSegment, positions: RowArray) -> FloatArray:
        """Score rows as if each token were its centroid: (N,)."""
        segment.check_ids(positions)
        if self._native:
            return self._native.score_centroids(self.table, segment.ids, segment.starts, positions)
        scores = np.empty(len(positions), np.float32)
        for start in range(0, len(positions), _CHUNK_ROWS):
            here = positions[start : start + _CHUNK_ROWS]
            ids = segment.gather_ids(here)
            scores[start : start + _CHUNK_ROWS] = _best_sums(self.table[ids], segment.counts(here))
        return scores

    def by_tokens(self, segment: TokenSegment, positions: RowArray, *, threads: int = 1) -> FloatArray:
        """Score rows by what is stored of each token: (N,)."""
        parts = [positions[start : start + _RANGE_ROWS] for start in range(0, len(positions), _RANGE_ROWS)]
        if threads < 2 or len(parts) < 2:
            return np.concatenate(
                [np.empty(0, np.float32), *(self._by_tokens(segment, part) for part in parts)]
            )
        with ThreadPoolExecutor(threads, "maxsim") as pool:
            return np.concatenate(list(on_threads(pool, lambda part: self._by_tokens(segment, part), parts)))

    def _by_tokens(self, segment: TokenSegment, positions: RowArray) -> FloatArray:
        segment.check_positions(positions)
        if self._native:
            return self._native.score_tokens(segment.ids, segment.codes, segment.starts, positions)
        scores = np.empty(len(positions), np.float32)
        for start in range(0, len(positions), _CHUNK_ROWS):
            found = segment.gather(positions[start : start + _CHUNK_ROWS])
            # In double precision, so that no score shows, in its last bit, which rows stood beside it.
            products = found.vectors.astype(np.float64) @ self._query.T.astype(np.float64)
            scores[start : start + _CHUNK_ROWS] = _best_sums(products, found.counts)
        return scores


def _best_sums(products: Floating, counts: RowArray) -> FloatArray:
    """Return the sum over columns of the largest product of each row's tokens: (T, Tq) and (N,) -> (N,)."""
    best = np.maximum.reduceat(products, np.cumsum(counts) - counts, axis=0)
    return np.asarray(best.sum(axis=1), np.float32)
