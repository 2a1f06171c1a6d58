"""Sparse vectors over a vocabulary: what a learned sparse model gives, and a sparse index holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.types import Float32


@dataclass(frozen=True)
class SparseVectors:
    """N sparse vectors of V dimensions, in compressed rows.

    Shapes:
        starts: (N + 1,) int64, row i has the entries from starts[i] to starts[i + 1]
        terms: (entries,) int32, ascending within a row, below V; weights: (entries,) float32, none of them 0
    """

    starts: npt.NDArray[np.int64]
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

    def row(self, position: int) -> tuple[npt.NDArray[np.int32], Float32]:
        """Return the terms and weights of one row."""
        part = slice(int(self.starts[position]), int(self.starts[position + 1]))
        return self.terms[part], self.weights[part]
