"""Scoring stored vectors with the kernels: the best of all rows for many queries, and single pairs in double precision."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from embedkit.machine import num_cores
from embedkit.native.dispatch import find_kernels, is_generic, why_not_here
from embedkit.native.library import Linear, load_library
from embedkit.native.packing import aligned_bytes, padded
from embedkit.native.threads import on_threads, taken

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

RANGE_ROWS = 8192  # that a thread scans at a time
FEW_QUERIES = 32  # with fewer, a product's panel of up to 64 columns is mostly empty
THREADS_WORTH = 20_000_000  # numbers, which one thread reads in 4 ms
_STORAGE_CODES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint8): 2}


class _Stored(ctypes.Structure):
    """`struct stored` of kernels/common/search.h."""

    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("storage", ctypes.c_int64),
        ("dimension", ctypes.c_int64),
        ("squared", ctypes.c_int64),
    )


@cache
def can_search() -> bool:
    """Say whether the kernels can run here and are worth it: those in plain C are slower than numpy."""
    return why_not_here("fp32") is None and not is_generic()


def num_threads() -> int:
    """Return how many threads a search may use: as many as OpenMP, which faiss uses, would take."""
    cores, asked = num_cores(), os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(asked))) if asked.isdigit() else cores


class StoredVectors:
    """Vectors where an index keeps them. A score is the inner product, or with `squared` minus the squared distance.

    Shapes:
        codes: (N, E) float32, float16 or uint8; scales: (E,) float32, with uint8 alone, of which a code is worth
            (code - 128) * scale
    """

    def __init__(self, codes: NDArray[Any], scales: Float32 | None, *, squared: bool) -> None:
        self._codes, self._scales = codes, scales  # kept alive
        self._structure = _Stored(
            codes=address_of(codes, codes.dtype),
            scales=None if scales is None else address_of(scales, np.float32),
            storage=_STORAGE_CODES[codes.dtype],
            dimension=codes.shape[1],
            squared=squared,
        )

    def score_pairs(self, queries: Float32, positions: Int64, scores: Float32) -> None:
        """Write the scores, summed in double precision: each depends on nothing but the query and the vector.

        Shapes:
            queries: (Q, E); positions: (Q, K), of which -1 leaves the score as it is; scores: (Q, K); all contiguous
        """
        load_library().embedkit_score_pairs(
            find_kernels("fp32"),
            ctypes.byref(self._structure),
            self._queries(queries),
            len(queries),
            address_of(positions, np.int64, len(queries), positions.shape[1]),
            positions.shape[1],
            address_of(scores, np.float32, *positions.shape),
        )

    def scan(
        self,
        queries: Float32,
        k: int,
        *,
        floor: Float32,
        allowed: NDArray[np.bool_] | None = None,
        threads: int = 1,
        check: Callable[[int, int], None] = lambda first, last: None,
    ) -> tuple[Float32, Int64]:
        """Return scores, good to six digits, and positions among which are the best k of each query.

        `check` is told which positions, from the first to before the last, are about to be read.

        Shapes:
            queries: (Q, E) contiguous; floor: (Q,), what a score must be above; allowed: (N,), which may be returned
            returns: (Q, k * threads) each, in no order; -inf and -1 where there are no more
        """
        address, (count, dimension) = self._queries(queries), queries.shape
        width, wide = padded(count), padded(dimension)
        library, kernels = load_library(), find_kernels("fp32")
        zeros, norms = np.zeros(width, np.float32), np.zeros(width, np.float32)
        if self._structure.squared:
            norms[:count] = np.einsum("qe,qe->q", queries, queries)
        weights = aligned_bytes(4 * width * wide)
        packed = Linear(weight=weights.ctypes.data, bias=zeros.ctypes.data, rows_in=dimension, columns=count)
        few = count < FEW_QUERIES
        if few:
            weights.view(np.float32).reshape(width, wide)[:count, :dimension] = queries
        else:
            library.embedkit_pack(
                kernels, ctypes.byref(packed), address, weights.ctypes.data, *(None,) * 4, 0.0
            )
        firsts = deque(range(0, len(self._codes), RANGE_ROWS))
        if len(self._codes) * dimension * max(1, count // 8) < THREADS_WORTH:
            threads = 1
        threads = min(threads, len(firsts))

        def work(_: int) -> tuple[Float32, Int64]:
            least = np.full(width, np.inf, np.float32)
            least[:count] = floor
            scores, found = np.repeat(floor[:, None], k, axis=1), np.full((count, k), -1, np.int64)
            memory = aligned_bytes(library.embedkit_scan_bytes(count, dimension))
            for first in taken(firsts):
                last = min(first + RANGE_ROWS, len(self._codes))
                check(first, last)
                library.embedkit_scan(
                    kernels,
                    ctypes.byref(self._structure),
                    ctypes.byref(packed),
                    few,
                    norms.ctypes.data,
                    first,
                    last,
                    None if allowed is None else address_of(allowed, np.bool_, len(self._codes)),
                    k,
                    least.ctypes.data,
                    scores.ctypes.data,
                    found.ctypes.data,
                    memory.ctypes.data,
                )
            scores[found < 0] = -np.inf
            return scores, found

        if threads < 2:
            return work(0)
        from concurrent.futures import ThreadPoolExecutor  # takes 10 ms to import

        with ThreadPoolExecutor(threads, "embedkit-search") as pool:
            parts = list(on_threads(pool, work, range(threads), stop=firsts.clear, keep=(weights, zeros)))
        return np.concatenate([scores for scores, _ in parts], axis=1), np.concatenate(
            [found for _, found in parts], axis=1
        )

    def _queries(self, queries: Float32) -> int:
        return address_of(queries, np.float32, len(queries), self._codes.shape[1])


def address_of(array: NDArray[Any], kind: npt.DTypeLike, *shape: int) -> int:
    """Return where an array's numbers lie, which is all that a kernel learns of them."""
    if array.dtype != kind or not array.flags.c_contiguous or (shape and array.shape != shape):
        raise ValueError(
            f"an array of {array.dtype} and {array.shape} does not fit: {kind} and {shape}, contiguous"
        )
    return int(array.ctypes.data)
