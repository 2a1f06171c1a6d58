"""Products of rows with one matrix: a row's result has the same bits in any company, which BLAS does not promise."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from embedkit.native.dispatch import find_kernels
from embedkit.native.library import load_library
from embedkit.native.packing import PackedLinear, aligned_bytes, padded

Float32 = NDArray[np.float32]


class RowProduct:
    """x W', with a matrix that is packed once.

    Shapes:
        weight: (M, K) float32
    """

    def __init__(self, weight: Float32) -> None:
        self._shape = weight.shape
        columns, size = map(padded, weight.shape)
        filled = _aligned(columns, size)
        filled[: weight.shape[0], : weight.shape[1]] = weight
        self._kernels = find_kernels("fp32")
        self._packed = PackedLinear(filled, np.zeros(columns, np.float32), precision="fp32")

    def __call__(self, rows: Float32) -> Float32:
        """Multiply on one thread: (N, K) -> (N, M)."""
        columns, size = self._shape
        read, out = _aligned(len(rows), padded(size)), _aligned(len(rows), padded(columns))
        read[:, :size] = rows
        if len(rows):
            load_library().embedkit_multiply(
                self._kernels,
                ctypes.byref(self._packed.structure),
                read.ctypes.data,
                len(rows),
                out.ctypes.data,
            )
        return out[:, :columns]


def _aligned(rows: int, columns: int) -> Float32:
    """Return zeros that vector instructions can read and write: (rows, columns)."""
    return aligned_bytes(4 * rows * columns).view(np.float32).reshape(rows, columns)
