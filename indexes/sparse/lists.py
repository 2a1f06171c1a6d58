"""The rows of a block by term: which rows have it, with which code, and the largest weight of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..storage.codes import FloatArray, RowArray
from .rows import Bytes, SparseRows

# In a block a row's place fits into 16 bits, and the sums of all of them into the cache (64 KB). Of 1,024, 2,048, 4,096 and 16,384 rows a
# block these gave the smallest index of 100,000 made-up passages and the fastest search (benchmarks/sparse.py): 750 bytes a passage and
# 0.7 ms a query, against 836 and 0.8 with 4,096.
BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class BlockLists:
    """The lists of one block of rows.

    Shapes:
        terms: (L,) uint32, ascending; starts: (L,) int64, of each list's entries; largest: (L,) float32, no weight is larger
        places: (entries,) uint16, ascending in a list; codes: (entries,) uint8
    """

    terms: npt.NDArray[np.uint32]
    starts: RowArray
    largest: FloatArray
    places: npt.NDArray[np.uint16]
    codes: Bytes


def make_lists(rows: SparseRows) -> BlockLists:
    """Turn the rows of a block, BLOCK_ROWS at most, around."""
    order = np.argsort(rows.terms, kind="stable")
    terms = rows.terms[order].astype(np.uint32)
    owners = np.repeat(np.arange(len(rows)), rows.counts)[order]
    codes = rows.codes[order]
    starts = np.flatnonzero(np.diff(terms.astype(np.int64), prepend=-1))
    weights = codes * rows.scales[owners].astype(np.float64)
    largest = np.maximum.reduceat(weights, starts) if len(starts) else np.empty(0)
    rounded = np.nextafter(largest.astype(np.float32), np.float32(np.inf))  # upwards: no weight may be larger
    return BlockLists(terms[starts], starts, rounded, owners.astype(np.uint16), codes)
