"""Exact search over the memory-mapped segments, with a running top-k.

1. Score all rows, fast and good to about six digits, and keep the best few of each query: a batch by kernels or, a tile at a
   time, by numpy; a lone query by numpy or faiss in one pass over the codes; binary storage by Hamming distance.
2. Score these few again, in double precision and row by row (`Snapshot.rescore`), so that a score depends on nothing but the
   query and the vector: not on the tile, the batch or the number of threads, which a product lets show in the last bits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from embedkit.native.search import StoredVectors, can_search, num_threads

from ..candidates import Candidates, Mask, Scorer
from ..storage.codes import FloatArray
from ..storage.segment import Segment
from ..types import Metric
from .tiles import search_tiles

# Hamming distance alone orders too coarsely; this many times k are scored again by the int8 vectors.
BINARY_OVERSAMPLING = 20
SCAN_BLOCK = 1024  # queries at a time: packed, 1.5 MB of 384 dimensions
# Without the kernels faiss is the fastest for a lone query, faster than numpy by so many nanoseconds a number: over 100,000
# rows of 384 dimensions it saves 2 ms (fp32), 88 (fp16) or 27 (int8). Importing it takes longer than that.
FAISS_SAVES = {"float32": 0.05, "float16": 2.3, "int8": 0.7, "binary": 0.0}
FAISS_START = 100e6  # nanoseconds
# faiss takes one query after another, 16 ms each over those rows (fp32); numpy's product takes about 100 ms for up to eight.
FAISS_QUERIES = 6


class MissedFaiss:
    """How long an index's searches have taken for want of faiss: once that is as long as its import takes, it is worth it."""

    def __init__(self) -> None:
        self._nanoseconds = 0.0

    def worth_importing(self, segments: Sequence[Segment]) -> bool:
        """Say whether faiss shall search these segments, and count what it would have saved where not."""
        saved = sum(FAISS_SAVES[segment.storage] * segment.codes.size for segment in segments)
        if not saved or "faiss" in sys.modules:
            return saved > 0
        self._nanoseconds += saved
        return self._nanoseconds > FAISS_START


def search_segments(
    segments: Sequence[Segment],
    scorer: Scorer,
    queries: FloatArray,
    k: int,
    *,
    missed: MissedFaiss,
    mask: Mask | None = None,
    first_row: int = 0,
    release: bool = False,
) -> Candidates:
    """Return the best k rows of each query among rows from `first_row` on for which `mask` holds.

    For binary storage they are the nearest by sign, and the scores minus the Hamming distances.
    `release` gives each segment's memory back after its turn.
    """
    best = Candidates.none(len(queries), k)
    kernels = can_search() and not scorer.fields  # which know products alone
    scan = (
        not kernels
        and not scorer.fields
        and len(queries) <= FAISS_QUERIES
        and missed.worth_importing(segments)
    )
    for segment in segments:
        start = int(np.searchsorted(segment.rows, first_row)) if first_row else 0
        if start == len(segment):
            continue
        allowed = None if mask is None else mask[segment.rows[start:]]
        if allowed is not None and not allowed.any():
            continue
        if segment.storage == "binary":
            best = best.merge(_search_bits(segment, queries, k, start, allowed), k)
        elif kernels:
            best = _search_blocks(segment, scorer, queries, best, start, allowed)
        elif scan:
            from .scan import scan_codes

            segment.check(start, len(segment))
            best = best.merge(scan_codes(segment, scorer.metric, queries, k, start, allowed), k)
        else:
            best = search_tiles(segment, scorer, queries, best, start, allowed)
        if release:
            segment.release()
    return best


def stored_vectors(segment: Segment, metric: Metric, start: int = 0) -> StoredVectors:
    """Return a segment's vectors from a position on as the kernels take them."""
    return StoredVectors(segment.codes[start:], segment.scales, squared=metric == "l2")


def _search_blocks(
    segment: Segment, scorer: Scorer, queries: FloatArray, best: Candidates, start: int, allowed: Mask | None
) -> Candidates:
    """Take what a segment holds from position `start` on into the best so far; `allowed` is by position from there on."""
    k = best.rows.shape[1]
    vectors = stored_vectors(segment, scorer.metric, start)
    parts = []
    for first in range(0, len(queries), SCAN_BLOCK):
        part = slice(first, first + SCAN_BLOCK)
        scores, positions = vectors.scan(
            queries[part],
            k,
            floor=best.scores[part, -1],
            allowed=None if allowed is None else np.ascontiguousarray(allowed),
            threads=num_threads(),
            check=lambda here, stop: segment.check(start + here, start + stop),
        )
        rows = np.where(positions >= 0, segment.rows[start + np.maximum(positions, 0)], -1)
        parts.append(Candidates(best.scores[part], best.rows[part]).merge(Candidates(scores, rows), k))
    return Candidates(
        np.concatenate([part.scores for part in parts]), np.concatenate([part.rows for part in parts])
    )


def _search_bits(
    segment: Segment, queries: FloatArray, k: int, start: int, allowed: Mask | None
) -> Candidates:
    """Return the nearest by sign; the scores are minus the Hamming distances."""
    from .scan import hamming_search

    segment.check(start, len(segment), bits=True)
    bits, rows = segment.bits[start:], segment.rows[start:]
    if allowed is not None:
        bits, rows = bits[allowed], rows[allowed]
    distances, found = hamming_search(np.packbits(queries >= 0, axis=1), bits, min(k, len(bits)))
    return Candidates(-distances.astype(np.float32), rows[found])
