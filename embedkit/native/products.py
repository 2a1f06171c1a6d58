"""Products of rows with one matrix: a row's result has the same bits in any company, which BLAS does not promise."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from embedkit.native.dispatch import find_kernels
from embedkit.native.library import load_library
from embedkit.native.packing import PackedLinear, aligned_floats, padded

Float32 = NDArray[np.float32]


class RowProduct:
    """x W', with a matrix that is packed once.

    Shapes:
        weight: (M, K) float32
    """

    def __init__(self, weight: Float32) -> None:
        self._shape = weight.shape
        columns, size = map(padded, weight.shape)
        filled = aligned_floats(columns, size)
        filled[: weight.shape[0], : weight.shape[1]] = weight
        self._kernels = find_kernels("fp32")
        self._packed = PackedLinear(filled, np.zeros(columns, np.float32), precision="fp32")

    def __call__(self, rows: Float32) -> Float32:
        """Multiply on one thread: (N, K) -> (N, M)."""
        columns, size = self._shape
        read, out = aligned_floats(len(rows), padded(size)), aligned_floats(len(rows), padded(columns))
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
