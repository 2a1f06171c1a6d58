"""Exact search in tiles by numpy: a product, and the best of its scores into the running best while the next is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from ..candidates import Candidates, Mask, Scorer
from ..storage.codes import FloatArray, RowArray, decode
from ..storage.segment import Segment

_Job = TypeVar("_Job")
_Done = TypeVar("_Done")

TILE_BYTES = 8 * 2**20  # of scores or decoded vectors at a time: what the caches of a small machine can hold
QUERY_BLOCK = 1024  # a product of 1,000 queries with 2,000 rows is a tenth faster than of 256 with 8,000
_STRETCH = 256  # scores


def search_tiles(
    segment: Segment, scorer: Scorer, queries: FloatArray, best: Candidates, start: int, allowed: Mask | None
) -> Candidates:
    """Take what a segment holds from position `start` on into the best so far; `allowed` is by position from there on."""
    scores, rows = best.scores, best.rows
    fresh = bool(scores[0, -1] == -np.inf)
    parts = [slice(first, first + QUERY_BLOCK) for first in range(0, len(queries), QUERY_BLOCK)]
    cut = _tiles(segment, start, min(len(queries), QUERY_BLOCK), fresh)
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

    for (_, part), (tile, tile_rows) in zip(jobs, _ahead(score, jobs), strict=True):
        keep_best(tile, tile_rows, scores[part], rows[part])
    return Candidates(scores, rows)


def _tiles(segment: Segment, start: int, num_queries: int, fresh: bool) -> Iterator[tuple[int, int]]:
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


def _ahead(work: Callable[[_Job], _Done], jobs: Sequence[_Job]) -> Iterator[_Done]:
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
