"""MaxSim with the kernels: one query's tokens against the tokens of many rows, as an index stores these."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.native.dispatch import find_kernels
from embedkit.native.library import load_library
from embedkit.native.packing import aligned_bytes, aligned_floats
from embedkit.native.search import address_of, can_search

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
LANES = 16  # to which a query's tokens and a vector's numbers are filled up; LANES in kernels/native.h


class _Tokens(ctypes.Structure):
    """`struct tokens` of kernels/common/maxsim.h."""

    _fields_ = (
        ("centroids", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("gains", ctypes.c_void_p),
        ("num_centroids", ctypes.c_int64),
        ("dimension", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("per_byte", ctypes.c_int64),
        ("row_bytes", ctypes.c_int64),
    )


class _Query(ctypes.Structure):
    """`struct token_query` of kernels/common/maxsim.h."""

    _fields_ = (("columns", ctypes.c_void_p), ("filled", ctypes.c_int64))


class _Rows(ctypes.Structure):
    """`struct token_rows` of kernels/common/maxsim.h."""

    _fields_ = (("ids", ctypes.c_void_p), ("codes", ctypes.c_void_p), ("starts", ctypes.c_void_p))


@cache
def can_score() -> bool:
    """Say whether the kernels can run here and are worth it."""
    return can_search()


class StoredTokens:
    """What token vectors are told by: a centroid, and of the difference a byte for its length and a few bits for each number.

    Shapes:
        centroids: (C, D) float32; scales: (D,) float32; table: (256, 2 or 4) float32, what the numbers of a byte stand for; gains:
            (256,) float32, what the first byte of a token makes of them
    """

    def __init__(self, centroids: Float32, scales: Float32, table: Float32, gains: Float32) -> None:
        count, dimension = centroids.shape
        width = filled_up(dimension)
        if scales.shape != (dimension,) or table.shape not in ((256, 2), (256, 4)):
            raise ValueError(
                f"{scales.shape} scales and a table {table.shape} do not fit {centroids.shape} centroids"
            )
        self._centroids, self._scales = aligned_floats(count, width), aligned_floats(1, width)
        self._centroids[:, :dimension], self._scales[0, :dimension] = centroids, scales
        self._table = np.ascontiguousarray(table, np.float32)
        self._gains = gains
        self.row_bytes = 1 - (-dimension // table.shape[1])
        self.structure = _Tokens(
            self._centroids.ctypes.data,
            self._scales.ctypes.data,
            self._table.ctypes.data,
            address_of(gains, np.float32, 256),
            num_centroids=count,
            dimension=dimension,
            width=width,
            per_byte=table.shape[1],
            row_bytes=self.row_bytes,
        )


class TokenQuery:
    """The (Tq, D) token vectors of one query, ready to score rows that are told by some `StoredTokens`.

    Shapes, in the methods:
        ids: (T,) uint16; codes: (T, bytes a token) uint8; starts: (N + 1,) int64, row i has the tokens from starts[i] to before
            starts[i + 1]; positions: (M,) int64 of rows; all contiguous
        returns: (M,) float32
    """

    def __init__(self, stored: StoredTokens, query: Float32) -> None:
        tokens, dimension = query.shape
        if dimension != stored.structure.dimension or not tokens:
            raise ValueError(
                f"a query of {query.shape} does not fit vectors of {stored.structure.dimension} numbers"
            )
        self._stored = stored
        self._columns = aligned_floats(dimension, filled_up(tokens))
        self._columns[:, :tokens] = query.T
        self._structure = _Query(self._columns.ctypes.data, self._columns.shape[1])

    def products(self) -> Float32:
        """Return the products of all centroids with the query's tokens, filled up with zeros: (C, at least Tq)."""
        found = aligned_floats(int(self._stored.structure.num_centroids), self._columns.shape[1])
        load_library().embedkit_centroid_products(
            find_kernels("fp32"),
            ctypes.byref(self._stored.structure),
            ctypes.byref(self._structure),
            found.ctypes.data,
        )
        return found

    def score_tokens(
        self, ids: NDArray[np.uint16], codes: NDArray[np.uint8], starts: Int64, positions: Int64
    ) -> Float32:
        """Score rows by MaxSim with the decoded vectors."""
        address_of(codes, np.uint8, len(ids), self._stored.row_bytes)
        rows, scores = _rows(ids, codes, starts, positions), np.empty(len(positions), np.float32)
        library = load_library()
        width, filled = self._stored.structure.width, self._columns.shape[1]
        memory = aligned_bytes(library.embedkit_maxsim_bytes(width, filled))
        library.embedkit_score_tokens(
            find_kernels("fp32"),
            ctypes.byref(self._stored.structure),
            ctypes.byref(self._structure),
            ctypes.byref(rows),
            positions.ctypes.data,
            len(positions),
            scores.ctypes.data,
            memory.ctypes.data,
        )
        return scores

    def score_centroids(
        self, products: Float32, ids: NDArray[np.uint16], starts: Int64, positions: Int64
    ) -> Float32:
        """Score rows by MaxSim as if their tokens were their centroids, with what `products` returned."""
        address_of(products, np.float32, len(products), self._columns.shape[1])
        rows, scores = _rows(ids, None, starts, positions), np.empty(len(positions), np.float32)
        load_library().embedkit_score_centroids(
            find_kernels("fp32"),
            products.ctypes.data,
            products.shape[1],
            ctypes.byref(rows),
            positions.ctypes.data,
            len(positions),
            scores.ctypes.data,
        )
        return scores


def filled_up(count: int) -> int:
    return -(-count // LANES) * LANES


def _rows(ids: NDArray[np.uint16], codes: NDArray[Any] | None, starts: Int64, positions: Int64) -> _Rows:
    """Name the rows' arrays, every position of which is looked at.

    Raises:
        ValueError: a kernel would read beyond them.
    """
    address_of(positions, np.int64, len(positions))
    if len(positions) and not 0 <= positions.min() <= positions.max() < len(starts) - 1:
        raise ValueError(f"positions from {positions.min()} to {positions.max()} of {len(starts) - 1} rows")
    if int(starts[-1]) > len(ids):
        raise ValueError(f"{int(starts[-1])} tokens of which {len(ids)} are there")
    return _Rows(
        address_of(ids, np.uint16, len(ids)),
        None if codes is None else codes.ctypes.data,
        address_of(starts, np.int64, len(starts)),
    )
