"""Searching the postings of a sparse index with the kernel of kernels/postings.c."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from embedkit.native.library import load_library, why_not_loadable

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


class _Postings(ctypes.Structure):
    """`struct postings` of kernels/postings.c."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("starts", "terms", "codes", "scales", "block_lists", "list_terms", "list_starts"),
                *("list_largest", "places", "posting_codes"),
            )
        ),
        *((name, ctypes.c_int64) for name in ("rows", "term_bytes", "num_blocks", "block_rows")),
    )


class _Query(ctypes.Structure):
    """`struct term_query`."""

    _fields_ = (
        ("terms", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("dense", ctypes.c_void_p),
        ("num_terms", ctypes.c_int64),
        ("allowed", ctypes.c_void_p),
        ("k", ctypes.c_int64),
        ("exhaustive", ctypes.c_int64),
        ("factor", ctypes.c_double),
    )


class _Found(ctypes.Structure):
    """`struct found`."""

    _fields_ = (
        ("heap", ctypes.c_void_p),
        ("heap_size", ctypes.c_int64),
        ("scores", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
    )


@cache
def can_search_postings() -> bool:
    """Say whether the kernel can run here."""
    return why_not_loadable() is None


@dataclass(frozen=True)
class Postings:
    """A segment's rows and lists, where an index keeps them.

    Shapes:
        starts: (N + 1,); terms: (entries,) uint16 or uint32; codes: (entries,) uint8; scales: (N,) float32
        block_lists: (blocks + 1,) int64; list_terms: (L,) uint32; list_starts: (L + 1,) int64; list_largest: (L,) float32
        places: (entries,) uint16; posting_codes: (entries,) uint8
    """

    starts: Int64
    terms: NDArray[Any]  # Any: of either width
    codes: NDArray[np.uint8]
    scales: Float32
    block_lists: Int64
    list_terms: NDArray[np.uint32]
    list_starts: Int64
    list_largest: Float32
    places: NDArray[np.uint16]
    posting_codes: NDArray[np.uint8]
    block_rows: int

    @property
    def num_blocks(self) -> int:
        return len(self.block_lists) - 1


@dataclass(frozen=True)
class TermQuery:
    """A query's terms, ascending, with their weights, none below 0; `dense` are these by term.

    `factor` 1 finds the best; a larger one takes the score to be reached for so much higher, and passes more over. With `exhaustive`
    nothing is passed over.
    """

    terms: NDArray[np.int32]
    weights: Float32
    dense: Float32
    factor: float = 1.0
    exhaustive: bool = False


class BestRows:
    """The best k rows of one query and all that tie with the last of them, over any number of segments."""

    def __init__(self, query: TermQuery, k: int) -> None:
        self._query, self._k = query, k
        self._heap, self._heap_size = np.zeros(k, np.float32), 0
        self._parts: list[tuple[Float32, Int64]] = []

    def add(self, postings: Postings, rows: Int64, allowed: NDArray[np.bool_] | None = None) -> None:
        """Search a segment, whose positions have the numbers `rows`; `allowed` (N,) says which may be returned."""
        capacity = min(len(rows), 4 * self._k + 1024)
        heap, size = self._heap.copy(), self._heap_size
        while True:
            scores, positions = np.empty(capacity, np.float32), np.empty(capacity, np.int64)
            found = _Found(heap.ctypes.data, size, scores.ctypes.data, positions.ctypes.data, 0, capacity)
            result = load_library().embedkit_search_postings(
                ctypes.byref(self._structure(postings)),
                ctypes.byref(self._of_query(allowed)),
                ctypes.byref(found),
            )
            if result == 0:
                break
            if result == -2 or capacity == len(rows):
                raise MemoryError("there is too little memory for a search")
            heap, capacity = self._heap.copy(), len(rows)  # more rows tie than was thought
        self._heap, self._heap_size = heap, found.heap_size
        self._parts.append((scores[: found.count], rows[positions[: found.count]]))

    def best(self) -> tuple[Float32, Int64]:
        """Return scores and rows, best first: at least k, unless there are fewer."""
        if not self._parts:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        scores, rows = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        if self._heap_size == self._k:
            kept = scores >= self._heap[0]
            scores, rows = scores[kept], rows[kept]
        order = np.argsort(-scores, kind="stable")
        return scores[order], rows[order]

    def _structure(self, postings: Postings) -> _Postings:
        values: dict[str, Any] = {  # Any: addresses and numbers
            "starts": _address(postings.starts, np.int64),
            "terms": _address(postings.terms, postings.terms.dtype),
            "codes": _address(postings.codes, np.uint8),
            "scales": _address(postings.scales, np.float32),
            "block_lists": _address(postings.block_lists, np.int64),
            "list_terms": _address(postings.list_terms, np.uint32),
            "list_starts": _address(postings.list_starts, np.int64),
            "list_largest": _address(postings.list_largest, np.float32),
            "places": _address(postings.places, np.uint16),
            "posting_codes": _address(postings.posting_codes, np.uint8),
            "rows": len(postings.starts) - 1,
            "term_bytes": postings.terms.itemsize,
            "num_blocks": postings.num_blocks,
            "block_rows": postings.block_rows,
        }
        return _Postings(**values)

    def _of_query(self, allowed: NDArray[np.bool_] | None) -> _Query:
        query = self._query
        return _Query(
            terms=_address(query.terms, np.int32),
            weights=_address(query.weights, np.float32),
            dense=_address(query.dense, np.float32),
            num_terms=len(query.terms),
            allowed=None if allowed is None else _address(allowed, np.bool_),
            k=self._k,
            exhaustive=query.exhaustive,
            factor=query.factor,
        )


def _address(array: NDArray[Any], kind: npt.DTypeLike) -> int:
    """Return where an array's numbers lie, which is all that the kernel learns of them."""
    if array.dtype != kind or not array.flags.c_contiguous:
        raise ValueError(f"an array of {array.dtype} does not fit: {kind}, contiguous")
    return int(array.ctypes.data)
