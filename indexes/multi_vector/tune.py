"""Measuring how much of exact MaxSim's hits the lists find, and choosing how hard a search shall look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, cast

import numpy as np

from embedkit.retrieval.token_vectors import TokenVectors

from ..maintenance.tune_points import ENOUGH, TunePoint, TuneReport, choose, recall_of, without_own
from ..search.snapshot import Snapshot
from ..storage.codes import RowArray
from .probing import Probing
from .search import Knobs, search_tokens

if TYPE_CHECKING:
    from ..store import Index
    from .segment import TokenSegment

QUERY_TOKENS = 32  # that a passage in place of a query has, as most queries have at most
_PROBES = (1, 2, 4, 8, 16, 32)
_CANDIDATES = (64, 128, 256, 512, 1024, 2048, 4096)


def tune_tokens(
    index: Index, target: float, k: int, queries: TokenVectors | None, num_queries: int, seed: int
) -> Iterator[TuneReport]:
    """Measure and choose as `maintenance.tune.tune` does."""
    own: RowArray | None = None
    if queries is None:
        own, queries = sample_queries(index.snapshot, num_queries, seed)
    truth = without_own(_found(index.snapshot, queries, k, None)[0], own, k)
    curve: list[TunePoint] = []
    best = 0.0
    for probes in _PROBES:
        reached: list[float] = []
        for candidates in (count for count in _CANDIDATES if count >= 2 * k):
            knobs = {"nprobe": probes, "candidates": candidates}
            rows, seconds = _found(index.snapshot, queries, k, knobs)
            recall = recall_of(without_own(rows, own, k), truth)
            curve.append(TunePoint(knobs, recall, len(queries) / seconds))
            yield TuneReport(tuple(curve))
            reached.append(recall)
            # Once more candidates find no more, what is missing is in no list that was read.
            if recall >= ENOUGH or (len(reached) > 1 and recall - reached[-2] < 0.0005):
                break
        if max(reached) >= ENOUGH or max(reached) - best < 0.0005:
            break
        best = max(reached)
    chosen, is_reached = choose(curve, target)
    points = [point.as_json() for point in curve]
    with index.database.transaction():
        Probing(knobs=dict(chosen.knobs), target_recall=target, curve=points).store(index.database)
    index.refresh()
    yield TuneReport(tuple(curve), chosen, is_reached)


def sample_queries(snapshot: Snapshot, count: int, seed: int) -> tuple[RowArray, TokenVectors]:
    """Draw living rows, ascending, and of each up to QUERY_TOKENS of its tokens, from all parts of it."""
    living = np.flatnonzero(snapshot.present)
    if len(living) > count:
        living = np.sort(np.random.default_rng(seed).choice(living, count, replace=False))
    vectors = [
        cast("TokenSegment", segment).gather(positions).text(number)
        for segment, _, positions in snapshot.locate(living)
        for number in range(len(positions))
    ]
    some = [each[_spread(len(each))] for each in vectors]
    return living, TokenVectors(np.concatenate(some), np.array([len(each) for each in some], np.int64))


def _spread(count: int) -> RowArray:
    return np.linspace(0, count - 1, min(count, QUERY_TOKENS), dtype=np.int64)


def _found(snapshot: Snapshot, queries: TokenVectors, k: int, knobs: Knobs | None) -> tuple[RowArray, float]:
    """Return the best k + 1 rows of each query, and the seconds that took."""
    started = perf_counter()
    blocks: Sequence[RowArray] = [
        found.rows[:, : k + 1] for found in search_tokens(snapshot, queries, k + 1, knobs=knobs)
    ]
    seconds = perf_counter() - started
    return np.concatenate(blocks), seconds
