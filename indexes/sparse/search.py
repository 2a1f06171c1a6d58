"""From the sparse vectors of queries to candidate rows: by the kernel where there is one, else by numpy.

A search is exact, however much it passes over (see kernels/postings.c), unless a knob says otherwise: `overshoot`, in percent, takes the
score that a row must reach for so much higher than it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np

from embedkit.errors import IndexMismatchError
from embedkit.native.postings import BestRows, TermQuery, can_search_postings
from embedkit.native.search import num_threads
from embedkit.native.threads import on_threads
from embedkit.retrieval.sparse_vectors import SparseVectors

from ..candidates import Candidates, Mask, Scored, best_and_ties
from ..search.ann_file import AnnFile
from ..search.search import SearchRequest
from ..search.snapshot import Snapshot
from ..storage.codes import FloatArray, RowArray
from .segment import SparseSegment

OVERSHOOT = "overshoot"
BLOCK_QUERIES = 64
# Where a filter lets fewer rows of a segment pass, they are scored one by one: a list has more entries than that.
FEW_ROWS = 256


def search_sparse(
    snapshot: Snapshot, ann: AnnFile | None, queries: SparseVectors, k: int, request: SearchRequest
) -> Iterator[Candidates]:
    """Yield at least the best k rows of each query, and all that tie with the last of them, in blocks.

    With `request.exact` nothing is passed over, for comparison.
    """
    yield from find_rows(
        snapshot, queries, k, rows=request.rows, exhaustive=request.exact, overshoot=_overshoot(request.knobs)
    )


def _overshoot(knobs: Mapping[str, int] | None) -> int:
    if not knobs:
        return 0
    unknown = sorted(set(knobs) - {OVERSHOOT})
    if unknown or knobs[OVERSHOOT] < 0:
        raise IndexMismatchError(
            f"the knobs are {dict(knobs)}; a sparse index has one, {OVERSHOOT}, in percent and not negative"
        )
    return knobs[OVERSHOOT]


def find_rows(
    snapshot: Snapshot,
    queries: SparseVectors,
    k: int,
    *,
    rows: RowArray | None = None,
    exhaustive: bool = False,
    overshoot: int = 0,
) -> Iterator[Candidates]:
    """Yield the best rows of each query in blocks, as `search_sparse`."""
    segments = cast("Sequence[SparseSegment]", snapshot.segments)
    mask, matching = snapshot.restrict(rows)
    for segment in segments:
        segment.check_all()

    def search(position: int) -> Scored:
        terms, weights = queries.row(position)
        dense = np.zeros(queries.dimension, np.float32)
        dense[terms] = weights
        query = TermQuery(
            np.ascontiguousarray(terms, np.int32),
            np.ascontiguousarray(weights, np.float32),
            dense,
            factor=1 + overshoot / 100,
            exhaustive=exhaustive,
        )
        return _search_one(segments, query, k, mask) if matching else _NOTHING

    threads = num_threads()
    for start in range(0, len(queries), BLOCK_QUERIES):
        block = range(start, min(len(queries), start + BLOCK_QUERIES))
        if len(block) < 2 or threads < 2:
            yield Candidates.of([search(position) for position in block])
            continue
        with ThreadPoolExecutor(threads, "sparse") as pool:
            yield Candidates.of(list(on_threads(pool, search, block)))


_NOTHING: Scored = np.empty(0, np.float32), np.empty(0, np.int64)


def _search_one(segments: Sequence[SparseSegment], query: TermQuery, k: int, mask: Mask | None) -> Scored:
    found: list[Scored] = []
    best = BestRows(query, k)
    for segment in segments:
        allowed = None if mask is None else np.ascontiguousarray(mask[segment.rows])
        if allowed is not None:
            count = int(np.count_nonzero(allowed))
            if count <= FEW_ROWS:
                found.append(_score(segment, np.flatnonzero(allowed), query))
                continue
        if can_search_postings():
            best.add(segment.postings, segment.rows, allowed)
        else:
            found.append(_score_lists(segment, query, allowed))
    found.append(best.best())
    scores, rows = (np.concatenate(part) for part in zip(*found, strict=True))
    return _best(scores, rows, k)


def _score(segment: SparseSegment, positions: RowArray, query: TermQuery) -> Scored:
    return segment.encoded(positions).scores(query.dense), segment.rows[positions]


def _score_lists(segment: SparseSegment, query: TermQuery, allowed: Mask | None) -> Scored:
    """Score all rows by the lists of the query's terms, in the order of terms: to the bit what `score_row` of the kernel gives."""
    lists = segment.postings
    found: list[FloatArray] = []
    for block in range(lists.num_blocks):
        positions = segment.block(block)
        first, last = lists.block_lists[block : block + 2].tolist()
        at = first + np.searchsorted(lists.list_terms[first:last], query.terms)
        there = [
            (number, weight)
            for number, term, weight in zip(at.tolist(), query.terms, query.weights.tolist(), strict=True)
            if number < last and lists.list_terms[number] == term
        ]
        sums = np.zeros(len(positions))
        for number, weight in there:
            part = slice(int(lists.list_starts[number]), int(lists.list_starts[number + 1]))
            sums[lists.places[part]] += weight * lists.posting_codes[part].astype(np.float64)
        found.append(np.asarray(sums * segment.scales[positions].astype(np.float64), np.float32))
    scores = np.concatenate([np.empty(0, np.float32), *found])
    kept = scores > 0 if allowed is None else (scores > 0) & allowed
    return scores[kept], segment.rows[kept]


def _best(scores: FloatArray, rows: RowArray, k: int) -> Scored:
    """Return the best k above 0 and all that tie with the last of them, best first."""
    positive = scores > 0
    return best_and_ties(scores[positive], rows[positive], k)
