"""From queries to candidate rows: the ANN structure for what it covers, exact search for the rest, one merge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from embedkit.retrieval.vectors import Vectors, take

from ..candidates import Candidates, Mask
from ..storage.codes import FloatArray, RowArray
from ..storage.payload import Payload
from .ann_file import AnnFile
from .snapshot import Snapshot

if TYPE_CHECKING:
    from .ann import AnnIndex, Knobs

_Made = TypeVar("_Made")
# Where (rows allowed) * (their share of all) is below this, exact search over them is faster than a structure that meets
# mostly rows it may not return: HNSW's effort grows as 1 / share, that of exact search with the rows. Measured on 100,000
# vectors of 384 dimensions with a fifth allowed: 0.28 ms a query exactly, 1.2 ms through the graph.
EXACT_WORTH = 5_000


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What a search is to find: the best k of the rows that a filter lets pass (None: of all), and how to look."""

    k: int
    rows: RowArray | None = None  # ascending
    group: bool = False
    exact: bool = False
    knobs: Knobs | None = None
    device: str | None = None


SearchRows = Callable[["Snapshot", "AnnFile | None", Any, int, SearchRequest], Iterator[Candidates]]
# The same of one commit: queries, how many are wanted of each, and the request. Any: vectors of the index's kind
FindRows = Callable[[Any, int, SearchRequest], Iterator[Candidates]]


@dataclass(frozen=True)
class KindParts:
    """What differs between the kinds of indexes: what segments hold, and the search among it."""

    payload: Payload
    search_rows: SearchRows


def search_made(
    find: FindRows,
    snapshot: Snapshot,
    queries: Vectors,
    request: SearchRequest,
    make: Callable[[Candidates, int], list[list[_Made]]],
    count_documents: Callable[[], int],
) -> list[list[_Made]]:
    """Search the prepared queries and return what `make`, given candidates and how many it may use, makes of them.

    `count_documents` says how many documents there are that a grouped search may find.
    """
    matching = snapshot.num_rows if request.rows is None else len(request.rows)
    results: list[list[_Made]] = [[] for _ in range(len(queries))]
    todo, width = np.arange(len(queries)), min(matching, 4 * request.k if request.group else request.k)
    while len(todo) and width:
        blocks = find(take(queries, todo), width, request)
        made = chain.from_iterable(make(found, width) for found in blocks)
        for query, of_query in zip(todo.tolist(), made, strict=True):
            results[query] = of_query
        if not request.group or width == matching:
            break
        # All passages of the best may belong to a few documents: look further for those queries, where there are others.
        short = [query for query in todo.tolist() if len(results[query]) < request.k]
        most = count_documents() if short else 0
        todo = np.asarray([query for query in short if len(results[query]) < most], np.int64)
        width = min(matching, 4 * width)
    return results


def search_rows(
    snapshot: Snapshot, ann: AnnFile | None, queries: FloatArray, k: int, request: SearchRequest
) -> Iterator[Candidates]:
    """Yield the candidates for the best k of the prepared queries, in blocks, scored by the stored vectors."""
    rows = request.rows
    mask, matching = snapshot.restrict(rows)
    covered = 0 if ann is None else ann.info.rows
    share = min(1.0, matching / max(1, covered, snapshot.num_rows))
    selective = share < 1 and matching * share < EXACT_WORTH
    if ann is None or request.exact or selective or not covered:
        if request.device is not None and not snapshot.settings.fields:
            from .gpu import search_device

            yield search_device(snapshot, queries, k, mask=mask, matching=matching, device=request.device)
        else:
            yield snapshot.search_exact(queries, k, rows=rows)
        return
    if rows is None and (mask is not None or covered != snapshot.rows_up_to(ann.info.last_row)):
        mask = snapshot.present  # a compaction may have dropped rows that the structure still holds
    knobs = request.knobs or ann.info.knobs
    for block, found in search_structure(snapshot, ann.load(), queries, k, knobs, mask=mask, share=share):
        if ann.info.last_row < snapshot.next_row - 1:
            newer = snapshot.search_exact(block, k, rows=rows, first_row=ann.info.last_row + 1)
            found = found.merge(newer, found.rows.shape[1] + newer.rows.shape[1])
        yield _completed(snapshot, block, found, min(k, matching), rows)


def search_structure(
    snapshot: Snapshot,
    structure: AnnIndex,
    queries: FloatArray,
    k: int,
    knobs: Knobs,
    *,
    mask: Mask | None,
    share: float = 1.0,
) -> Iterator[tuple[FloatArray, Candidates]]:
    """Yield the queries in blocks, each with what the structure finds, scored by the stored vectors."""
    from .ann import search_blocks

    def search(block: FloatArray) -> Candidates:
        found = structure.search(block, k, knobs, mask=mask, share=share)
        return snapshot.rescore(block, snapshot.shortlist(block, found, k))

    return search_blocks(search, queries)


def _completed(
    snapshot: Snapshot, queries: FloatArray, found: Candidates, wanted: int, rows: RowArray | None
) -> Candidates:
    """Give those queries the exact answer for which a graph, or the lists probed, held fewer rows than wanted."""
    short = np.flatnonzero((found.rows >= 0).sum(axis=1) < wanted)
    if not len(short):
        return found
    return found.replace(short, snapshot.search_exact(queries[short], wanted, rows=rows))
