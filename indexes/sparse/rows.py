"""Weights of terms in 8 bits: as they are stored, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.retrieval.token_vectors import spans

from ..storage.codes import FloatArray, RowArray

Terms = npt.NDArray[Any]  # Any: uint16, or uint32 of a vocabulary of more than 65,536
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SparseRows:
    """N rows of terms: the weight of an entry is its code times the row's scale.

    A row's scale depends on the row alone: so no commit and no compaction ever changes a score.

    Shapes:
        counts: (N,) int64; terms: (entries,), ascending in a row; codes: (entries,) uint8, none 0; scales: (N,) float32
    """

    counts: RowArray
    terms: Terms
    codes: Bytes
    scales: FloatArray

    @property
    def starts(self) -> RowArray:
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def directed(self) -> npt.NDArray[np.bool_]:
        """(N,): which rows have any terms."""
        return self.counts > 0

    def take(self, positions: RowArray) -> SparseRows:
        """Return some of the rows, by position."""
        counts = self.counts[positions]
        at = spans(self.starts[positions], counts)
        return SparseRows(counts, self.terms[at], self.codes[at], self.scales[positions])

    @classmethod
    def concatenate(cls, parts: Sequence[SparseRows]) -> SparseRows:
        """Put the rows of several into one; at least one must be given."""
        return cls(
            np.concatenate([part.counts for part in parts]),
            np.concatenate([part.terms for part in parts]),
            np.concatenate([part.codes for part in parts]),
            np.concatenate([part.scales for part in parts]),
        )

    @classmethod
    def of(cls, vectors: SparseVectors) -> SparseRows:
        """Bring weights, which are above 0, to 8 bits; those below half a step, 1/510 of the row's largest, are left out."""
        owners = np.repeat(np.arange(len(vectors)), vectors.counts)
        largest = np.zeros(len(vectors), np.float32)
        np.maximum.at(largest, owners, vectors.weights)
        scales = largest / np.float32(255)
        codes = np.rint(vectors.weights / scales[owners]).astype(np.uint8)
        kept = codes > 0
        counts = np.bincount(owners[kept], minlength=len(vectors)).astype(np.int64)
        return cls(counts, vectors.terms[kept].astype(term_type(vectors.dimension)), codes[kept], scales)

    def decode(self, dimension: int) -> SparseVectors:
        """Return the weights as float32."""
        weights = self.codes * np.repeat(self.scales, self.counts)
        return SparseVectors(self.starts, self.terms.astype(np.int32), weights.astype(np.float32), dimension)

    def scores(self, dense: FloatArray) -> FloatArray:
        """Score every row for a query's weights by term (V,), in double precision, a row's terms in ascending order: (N,)."""
        owners = np.repeat(np.arange(len(self)), self.counts)
        products = dense[self.terms].astype(np.float64) * self.codes
        sums = np.bincount(owners, products, minlength=len(self)) * self.scales.astype(np.float64)
        return np.asarray(sums, np.float32)


def term_type(dimension: int) -> type[np.uint16 | np.uint32]:
    """Return the smallest type that holds a term's number."""
    return np.uint16 if dimension <= 2**16 else np.uint32
