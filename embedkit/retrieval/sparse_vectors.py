"""Sparse vectors over a vocabulary: what a learned sparse model gives, and a sparse index holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from embedkit.types import Float32

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SparseVectors:
    """N sparse vectors of V dimensions, in compressed rows.

    Shapes:
        starts: (N + 1,) int64, row i has the entries from starts[i] to starts[i + 1]
        terms: (entries,) int32, ascending within a row, below V; weights: (entries,) float32, none of them 0
    """

    starts: Ints
    terms: npt.NDArray[np.int32]
    weights: Float32
    dimension: int

    def __post_init__(self) -> None:
        if (
            len(self.starts) < 1
            or int(self.starts[-1]) != len(self.terms)
            or len(self.terms) != len(self.weights)
        ):
            raise ValueError(
                f"{len(self.terms)} terms and {len(self.weights)} weights were given for {int(self.starts[-1])} entries"
            )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> Ints:
        """(N,): how many terms each row has."""
        return np.diff(self.starts)

    @property
    def directed(self) -> npt.NDArray[np.bool_]:
        """(N,): which rows have any terms."""
        return self.counts > 0

    def row(self, position: int) -> tuple[npt.NDArray[np.int32], Float32]:
        """Return the terms and weights of one row."""
        part = slice(int(self.starts[position]), int(self.starts[position + 1]))
        return self.terms[part], self.weights[part]

    @classmethod
    def none(cls, dimension: int, rows: int = 0) -> Self:
        """Return rows without terms, or no rows at all."""
        return cls(np.zeros(rows + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), dimension)

    @classmethod
    def from_dense(cls, dense: Float32) -> Self:
        """Take what is not 0 of (N, V)."""
        rows, terms = np.nonzero(dense)
        return cls(
            _starts(np.bincount(rows, minlength=len(dense))),
            terms.astype(np.int32),
            dense[rows, terms],
            dense.shape[1],
        )

    def to_dense(self) -> Float32:
        """Return (N, V) float32."""
        dense = np.zeros((len(self), self.dimension), np.float32)
        dense[np.repeat(np.arange(len(self)), self.counts), self.terms] = self.weights
        return dense

    @classmethod
    def concatenate(cls, parts: Sequence[SparseVectors]) -> Self:
        """Put the rows of several into one; at least one must be given."""
        return cls(
            _starts(np.concatenate([part.counts for part in parts])),
            np.concatenate([part.terms for part in parts]),
            np.concatenate([part.weights for part in parts]),
            parts[0].dimension,
        )

    def take(self, rows: Sequence[int] | Ints) -> SparseVectors:
        """Return some of the rows, in the order given."""
        order = np.asarray(rows, np.int64)
        counts = self.counts[order]
        starts = _starts(counts)
        entries = np.arange(starts[-1]) + np.repeat(self.starts[order] - starts[:-1], counts)
        return SparseVectors(starts, self.terms[entries], self.weights[entries], self.dimension)

    def where(self, wanted: npt.NDArray[np.bool_]) -> SparseVectors:
        """Return the same rows, those that are not `wanted` (N,) without terms."""
        kept = np.repeat(wanted, self.counts)
        counts = np.where(wanted, self.counts, 0)
        return SparseVectors(_starts(counts), self.terms[kept], self.weights[kept], self.dimension)

    def strongest(self, count: int) -> SparseVectors:
        """Keep the `count` terms of largest weight of each row; of equal ones those that come first."""
        owners = np.repeat(np.arange(len(self)), self.counts)
        order = np.lexsort((self.terms, -np.abs(self.weights), owners))  # by row, the largest first
        ranks = np.arange(len(order)) - self.starts[owners]
        kept = np.sort(order[ranks < count])
        counts = np.minimum(self.counts, count)
        return SparseVectors(_starts(counts), self.terms[kept], self.weights[kept], self.dimension)

    def dot(self, other: SparseVectors) -> Float32:
        """Return the products of all rows with all of another's: (N, M) float32, added up in double precision."""
        scores = np.empty((len(self), len(other)), np.float32)
        owners = np.repeat(np.arange(len(other)), other.counts)
        for position in range(len(self)):
            terms, weights = self.row(position)
            query = np.zeros(self.dimension)
            query[terms] = weights
            scores[position] = np.bincount(owners, query[other.terms] * other.weights, minlength=len(other))
        return scores


def _starts(counts: npt.NDArray[np.integer]) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
