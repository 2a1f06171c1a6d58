"""Means of rows of a table with the kernel of kernels/means.c: what a static model makes of a text's tokens."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.native.library import load_library

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


class _Table(ctypes.Structure):
    """`struct table` of kernels/means.c."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("row_scale", ctypes.c_void_p),
        ("column_scale", ctypes.c_void_p),
        ("dimension", ctypes.c_int64),
    )


class RowMeans:
    """A table whose rows are averaged where they lie.

    Shapes:
        rows: (R, D) float32, or int8 with scales of rows (R,) and of columns (D,)
    """

    def __init__(self, rows: NDArray[Any], scales: tuple[Float32, Float32] | None = None) -> None:
        if rows.dtype != (np.float32 if scales is None else np.int8):
            raise TypeError(f"rows are {rows.dtype}; they must be float32, or int8 with scales")
        self._rows = np.ascontiguousarray(rows)
        if not self._rows.flags.aligned:
            self._rows = self._rows.copy()
        self._scales = [np.require(each, np.float32, ["C", "A"]) for each in scales or ()]
        self._table = _Table(
            rows=self._rows.ctypes.data,
            row_scale=self._scales[0].ctypes.data if self._scales else None,
            column_scale=self._scales[1].ctypes.data if self._scales else None,
            dimension=rows.shape[1],
        )

    def __call__(self, numbers: Int64, lengths: Int64, *, skip: int = 0) -> Float32:
        """Return the mean of each sequence's rows behind the first `skip`, 0 where there are none: (N,), (B,) -> (B, D).

        Raises:
            IndexError: there is no row of a number.
        """
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self._rows):
            raise IndexError(f"rows are numbered from 0 to {len(self._rows) - 1}")
        if lengths.sum() != len(numbers):
            raise ValueError(f"{len(numbers)} rows, and lengths of {lengths.sum()}")
        means = np.empty((len(lengths), self._rows.shape[1]), np.float32)
        numbers, lengths = np.ascontiguousarray(numbers, np.int64), np.ascontiguousarray(lengths, np.int64)
        load_library().embedkit_mean_rows(
            ctypes.byref(self._table),
            numbers.ctypes.data,
            lengths.ctypes.data,
            len(lengths),
            skip,
            means.ctypes.data,
        )
        return means
