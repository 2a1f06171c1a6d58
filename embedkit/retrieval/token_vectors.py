"""The vectors of the tokens of some texts: what a multi-vector model gives, and a multi-vector index holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from embedkit.types import Float32


@dataclass(frozen=True)
class TokenVectors:
    """The token vectors of N texts, one text after the other.

    Shapes:
        vectors: (sum of counts, D) float32, of unit length; counts: (N,) int64, how many are each text's, 0 for one without any
    """

    vectors: Float32
    counts: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or int(self.counts.sum()) != len(self.vectors):
            raise ValueError(
                f"{self.vectors.shape} vectors were given for {int(self.counts.sum())} tokens of {len(self.counts)} texts"
            )

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """(N + 1,): text i has the rows from starts[i] to starts[i + 1]."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])

    def text(self, position: int) -> Float32:
        """Return the (T, D) vectors of one text."""
        starts = self.starts
        return self.vectors[starts[position] : starts[position + 1]]

    @property
    def directed(self) -> npt.NDArray[np.bool_]:
        """(N,): which texts have any vectors."""
        return self.counts > 0

    def where(self, wanted: npt.NDArray[np.bool_]) -> TokenVectors:
        """Return the same texts, those that are not `wanted` (N,) without vectors."""
        return TokenVectors(
            self.vectors[np.repeat(wanted, self.counts)], np.where(wanted, self.counts, 0).astype(np.int64)
        )

    def take(self, rows: npt.NDArray[np.int64]) -> TokenVectors:
        """Return the texts of some positions, in the order of `rows`."""
        if len(rows) == len(self) and np.array_equal(rows, np.arange(len(self))):
            return self
        counts = self.counts[rows]
        return TokenVectors(self.vectors[spans(self.starts[rows], counts)], counts)

    @classmethod
    def concatenate(cls, parts: Sequence[TokenVectors]) -> Self:
        """Put the texts of several into one; at least one must be given."""
        return cls(
            np.concatenate([part.vectors for part in parts]), np.concatenate([part.counts for part in parts])
        )


def spans(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the numbers from each start on, as many as its count, one span after the other.

    >>> spans(np.array([7, 2]), np.array([2, 3])).tolist()
    [7, 8, 2, 3, 4]
    """
    firsts = np.cumsum(counts) - counts
    return np.asarray(np.arange(int(counts.sum())) + np.repeat(starts - firsts, counts), np.int64)
