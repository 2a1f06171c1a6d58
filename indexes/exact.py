"""Exact search over the memory-mapped segments, in tiles, with a running top-k.

1. Score a tile of rows against all queries: one matrix product, or for a lone query one pass over the codes.
2. Keep what beats the worst of the best so far, while the next tile is being scored. Where the kernels of embedkit.native
   run, they do both, a cache's worth of rows at a time.
3. Score the best few again, in double precision and row by row (`rescore`), so that a score depends on nothing but
   the query and the vector: not on the tile, the batch or the number of threads, which a BLAS lets show in the last bits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from embedkit.native.search import StoredVectors, can_search

from .segment import FloatArray, RowArray, Segment, decode
from .settings import Metric

_Job = TypeVar("_Job")
_Done = TypeVar("_Done")
Mask = npt.NDArray[np.bool_]  # by row number: may the row be returned?

TILE_BYTES = 8 * 2**20  # of scores or decoded vectors at a time: what the caches of a small machine can hold
QUERY_BLOCK = 1024  # a product of 1,000 queries with 2,000 rows is a tenth faster than of 256 with 8,000
# Hamming distance alone orders too coarsely; this many times k are scored again by the int8 vectors.
BINARY_OVERSAMPLING = 20
# The kernels compute 64 columns at least: with fewer queries the BLAS, or faiss, has less to do.
SCAN_QUERIES = 32
_STRETCH = 256  # scores
_LONE_ROWS = 512  # of which the differences from a query stay in the cache
# For a lone query faiss is faster than numpy, by so many nanoseconds a number: over 100,000 rows of 384 dimensions it saves
# 2 ms (fp32), 88 (fp16) or 27 (int8). Importing it takes longer than that.
FAISS_SAVES = {"float32": 0.05, "float16": 2.3, "int8": 0.7, "binary": 0.0}
FAISS_START = 100e6  # nanoseconds
_lost = 0.0  # nanoseconds that this process has spent for want of faiss


@dataclass(frozen=True)
class Candidates:
    """The rows that may be the best, by query; a row of -1 (score -inf) is no candidate.

    Shapes:
        scores: (Q, K) float32, best first; rows: (Q, K) int64
    """

    scores: FloatArray
    rows: RowArray

    @staticmethod
    def none(num_queries: int, k: int) -> Candidates:
        return Candidates(
            np.full((num_queries, k), -np.inf, np.float32), np.full((num_queries, k), -1, np.int64)
        )

    def merge(self, other: Candidates, k: int) -> Candidates:
        """Return the best k of two sets without a row in common."""
        scores = np.concatenate([self.scores, other.scores], axis=1)
        rows = np.concatenate([self.rows, other.rows], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return Candidates(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))


@dataclass(frozen=True)
class Scorer:
    """What a score is: the inner product, or for l2 minus the squared distance."""

    metric: Metric

    def tile(self, queries: FloatArray, vectors: FloatArray) -> FloatArray:
        """Score (Q, E) against (T, E) as (Q, T), fast and good to about six digits."""
        scores: FloatArray
        if len(queries) == 1:
            return self._lone(queries[0], vectors)[None]
        scores = queries @ vectors.T
        if self.metric == "l2":
            scores *= 2
            scores -= np.einsum("te,te->t", vectors, vectors)
            scores -= np.einsum("qe,qe->q", queries, queries)[:, None]
        return scores

    def _lone(self, query: FloatArray, vectors: FloatArray) -> FloatArray:
        """Score (E,) against (T, E) as (T,).

        Not by the BLAS, which on a busy machine waits 8 ms for its threads, and alone is a third slower.
        """
        scores: FloatArray
        if self.metric != "l2":
            scores = np.einsum("te,e->t", vectors, query)
            return scores
        scores = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), _LONE_ROWS):
            differences = vectors[start : start + _LONE_ROWS] - query
            np.einsum("te,te->t", differences, differences, out=scores[start : start + _LONE_ROWS])
        return -scores

    def pairs(self, queries: FloatArray, vectors: FloatArray) -> FloatArray:
        """Score (Q, E) against the (Q, K, E) of each query as (Q, K), in double precision.

        A product of a line and a column is a dot product of its own: equal vectors have equal scores, whatever stands
        beside them.
        """
        doubles, ours = vectors.astype(np.float64), queries.astype(np.float64)[:, None, :]
        if self.metric == "l2":
            doubles -= ours
            ours = -doubles
        products = np.matmul(doubles[:, :, None, :], ours[..., None])  # (Q, K, 1, 1)
        return np.asarray(products[:, :, 0, 0], np.float32)

    def error(self, queries: FloatArray, best: FloatArray) -> FloatArray:
        """Bound how far `tile` may be from `pairs`, by query.

        Shapes:
            queries: (Q, E); best: (Q,) the best score of each
            returns: (Q,)
        """
        if self.metric == "cosine":
            return np.full(len(queries), 1e-5, np.float32)
        # The norms of the stored vectors are not known; those of the best are within reach of the scores.
        norms = np.einsum("qe,qe->q", queries, queries)
        return np.asarray(1e-5 * np.maximum(np.maximum(norms, np.abs(best)), 1e-30), np.float32)


def search_segments(
    segments: Sequence[Segment],
    scorer: Scorer,
    queries: FloatArray,
    k: int,
    *,
    mask: Mask | None = None,
    first_row: int = 0,
    release: bool = False,
) -> Candidates:
    """Return the best k rows of each query among rows from `first_row` on for which `mask` holds.

    For binary storage they are the nearest by sign, and the scores minus the Hamming distances.
    `release` gives each segment's memory back after its turn.
    """
    best = Candidates.none(len(queries), k)
    scan = len(queries) <= 2 and _worth_faiss(segments)
    for segment in segments:
        start = int(np.searchsorted(segment.rows, first_row)) if first_row else 0
        if start == len(segment):
            continue
        allowed = None if mask is None else mask[segment.rows[start:]]
        if allowed is not None and not allowed.any():
            continue
        if segment.storage == "binary":
            best = best.merge(_search_bits(segment, queries, k, start, allowed), k)
        elif scan:
            from .ann import scan_codes

            segment.check(start, len(segment))
            best = best.merge(scan_codes(segment, scorer.metric, queries, k, start, allowed), k)
        elif len(queries) >= SCAN_QUERIES and can_search():
            best = _scan(segment, scorer, queries, best, start, allowed)
        else:
            best = _search_tiles(segment, scorer, queries, best, start, allowed)
        if release:
            segment.release()
    return best


def _worth_faiss(segments: Sequence[Segment]) -> bool:
    """Say whether faiss is there already, or has been missed by now for as long as its import takes."""
    global _lost
    saved = sum(FAISS_SAVES[segment.storage] * segment.codes.size for segment in segments)
    if not saved or "faiss" in sys.modules:
        return saved > 0
    _lost += saved
    return _lost > FAISS_START


def tiles(segment: Segment, start: int, num_queries: int, fresh: bool) -> Iterator[tuple[int, int]]:
    """Cut positions start to the end into tiles whose scores, and decoded vectors, fit the cache.

    While nothing is known yet (`fresh`) the tiles are small: nearly all of a first tile is better than nothing.
    """
    per_row = 4 * max(num_queries, 1 if segment.storage == "float32" else segment.dimension)
    largest = max(1024, TILE_BYTES // per_row // 64 * 64)
    size = 1024 if fresh and num_queries > 1 else largest
    at = start
    while at < len(segment):
        yield at, min(len(segment), at + size)
        at += size
        size = min(largest, 4 * size)


def stored_vectors(segment: Segment, metric: Metric, start: int = 0) -> StoredVectors:
    """Return a segment's vectors from a position on as the kernels take them."""
    return StoredVectors(segment.codes[start:], segment.scales, squared=metric == "l2")


def _scan(
    segment: Segment, scorer: Scorer, queries: FloatArray, best: Candidates, start: int, allowed: Mask | None
) -> Candidates:
    k = best.rows.shape[1]
    vectors = stored_vectors(segment, scorer.metric, start)
    parts = []
    for first in range(0, len(queries), QUERY_BLOCK):
        part = slice(first, first + QUERY_BLOCK)
        scores, positions = vectors.scan(
            queries[part],
            k,
            floor=best.scores[part].min(axis=1),
            allowed=None if allowed is None else np.ascontiguousarray(allowed),
            threads=num_threads(),
            check=lambda here, stop: segment.check(start + here, start + stop),
        )
        rows = np.where(positions >= 0, segment.rows[start + np.maximum(positions, 0)], -1)
        parts.append(Candidates(best.scores[part], best.rows[part]).merge(Candidates(scores, rows), k))
    return Candidates(
        np.concatenate([part.scores for part in parts]), np.concatenate([part.rows for part in parts])
    )


def num_threads() -> int:
    """Return how many threads a search may use: as many as OpenMP, which faiss uses, would take."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(asked))) if asked.isdigit() else cores


def _search_tiles(
    segment: Segment, scorer: Scorer, queries: FloatArray, best: Candidates, start: int, allowed: Mask | None
) -> Candidates:
    scores, rows = best.scores, best.rows
    fresh = bool(scores[0, -1] == -np.inf)
    parts = [slice(first, first + QUERY_BLOCK) for first in range(0, len(queries), QUERY_BLOCK)]
    cut = tiles(segment, start, min(len(queries), QUERY_BLOCK), fresh)
    jobs = [(slice(at, stop), part) for at, stop in cut for part in parts]

    def score(job: tuple[slice, slice]) -> tuple[FloatArray, RowArray]:
        where, part = job
        segment.check(where.start, where.stop)
        tile_rows, codes = segment.rows[where], segment.codes[where]
        hidden = None
        if allowed is not None:
            here = allowed[where.start - start : where.stop - start]
            kept = np.count_nonzero(here)
            if kept < len(here) // 2:
                tile_rows, codes = tile_rows[here], codes[here]
            elif kept < len(here):  # a copy of the many costs more than scores of a few that are not wanted
                hidden = np.flatnonzero(~here)
        tile = scorer.tile(queries[part], decode(codes, segment.scales))
        if hidden is not None:
            tile[:, hidden] = -np.inf
        return tile, tile_rows

    for (_, part), (tile, tile_rows) in zip(jobs, ahead(score, jobs), strict=True):
        keep_best(tile, tile_rows, scores[part], rows[part])
    return Candidates(scores, rows)


def ahead(work: Callable[[_Job], _Done], jobs: Sequence[_Job]) -> Iterator[_Done]:
    """Yield work(job) for each, the next of which is under way, in a thread, while the caller uses the last.

    BLAS and faiss take all processors for a product or a search; what numpy and Python do with the result takes one.
    """
    if len(jobs) < 2:
        yield from map(work, jobs)
        return
    from concurrent.futures import ThreadPoolExecutor  # takes 10 ms to import: not for a lone query

    with ThreadPoolExecutor(1, thread_name_prefix="search") as pool:
        coming = pool.submit(work, jobs[0])
        for job in jobs[1:]:
            done = coming.result()
            coming = pool.submit(work, job)
            yield done
        yield coming.result()


def keep_best(tile: FloatArray, tile_rows: RowArray, scores: FloatArray, rows: RowArray) -> None:
    """Take what a tile has to offer into the running best, in place.

    Shapes:
        tile: (Q, T) scores of the rows tile_rows (T,)
        scores, rows: (Q, K) descending by score
    """
    k = scores.shape[1]
    if (
        tile.shape[1] > 8 * k and scores[:, -1].max() == -np.inf
    ):  # the first tile: all of it is better than nothing
        _take_top(tile, tile_rows, scores, rows, slice(None))
        return
    flat = np.flatnonzero(tile > scores[:, -1:])
    if not len(flat):
        return
    which, columns = np.divmod(flat, tile.shape[1])
    counts = np.bincount(which, minlength=len(tile))
    heavy = np.flatnonzero(counts > 8 * k)
    if len(heavy):
        _take_top(tile[heavy], tile_rows, scores, rows, heavy)
        light = counts[which] <= 8 * k
        which, columns = which[light], columns[light]
        counts[heavy] = 0
    active = np.flatnonzero(counts)
    if not len(active):
        return
    # Later a tile offers a query a few rows or none: lay those out as (A, most) and merge all queries at once.
    new_scores = np.full((len(active), int(counts.max())), -np.inf, np.float32)
    new_rows = np.full(new_scores.shape, -1, np.int64)
    counts = counts[active]
    slots = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    lines = np.repeat(np.arange(len(active)), counts)
    new_scores[lines, slots] = tile[which, columns]
    new_rows[lines, slots] = tile_rows[columns]
    merged = Candidates(scores[active], rows[active]).merge(Candidates(new_scores, new_rows), k)
    scores[active], rows[active] = merged.scores, merged.rows


def _take_top(
    tile: FloatArray, tile_rows: RowArray, scores: FloatArray, rows: RowArray, lines: slice | RowArray
) -> None:
    """Take the best of a tile into those lines of the running best that it belongs to."""
    k = scores.shape[1]
    if len(tile) == 1 and tile.shape[1] >= _STRETCH * k:
        # The k-th best of the maxima of stretches is no better than the k-th best of all: what is below it need not be
        # partitioned, which would take a tenth of a lone query's time.
        whole = tile.shape[1] // _STRETCH * _STRETCH
        maxima = tile[0, :whole].reshape(-1, _STRETCH).max(axis=1)
        near = np.flatnonzero(tile[0] >= np.partition(maxima, -k)[-k])
        tile, tile_rows = tile[:, near], tile_rows[near]
    top = np.argpartition(tile, -k, axis=1)[:, -k:]
    offered = np.take_along_axis(tile, top, axis=1)
    new = Candidates(offered, np.where(offered > -np.inf, tile_rows[top], -1))
    merged = Candidates(scores[lines], rows[lines]).merge(new, k)
    scores[lines], rows[lines] = merged.scores, merged.rows


def _search_bits(
    segment: Segment, queries: FloatArray, k: int, start: int, allowed: Mask | None
) -> Candidates:
    """Return the nearest by sign; the scores are minus the Hamming distances."""
    from .ann import hamming_search

    segment.check(start, len(segment), bits=True)
    bits, rows = segment.bits[start:], segment.rows[start:]
    if allowed is not None:
        bits, rows = bits[allowed], rows[allowed]
    distances, found = hamming_search(np.packbits(queries >= 0, axis=1), bits, min(k, len(bits)))
    return Candidates(-distances.astype(np.float32), rows[found])
