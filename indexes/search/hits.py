"""From candidate rows to hits: their documents, in order, each proved to be what was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from embedkit.data.records import Hit
from embedkit.errors import IndexFileError

from ..candidates import Candidates
from ..storage.codes import RowArray
from ..storage.database import Database
from ..storage.documents import StoredPassage, read_passages
from ..storage.faults import reading
from ..storage.metadata import read_metadata
from .filters import Filter
from .snapshot import Snapshot
from .text import find_terms, search_words

Names = dict[int, str]  # doc_id by row: a row never changes its document, nor is its number used again
MAX_NAMES = 2**20  # about 150 MB


def make_hits(
    database: Database, snapshot: Snapshot, found: Candidates, *, k: int, width: int, group: bool, part: str
) -> list[list[Hit]]:
    """Return up to k hits for each query, best first, ties by id and passage.

    Candidates that are as good as number `width` are looked up, with `group` the best passage of each document is kept,
    and `part` is what the score is called in `Hit.scores`.

    Raises:
        IndexFileError: a row has no passage, or text and vector do not belong together.
    """
    counts, rows = _wanted(found, width)
    passages = _read(database, snapshot, np.unique(rows))
    names = {row: stored.doc_id for row, stored in passages.items()}
    metadata: dict[int, dict[str, Any]] = {}  # Any: whatever JSON holds
    results = []
    for best, scores in _in_order(found, counts, names, k, group):
        hits = []
        for row, score in zip(best, scores, strict=True):
            stored = passages[row]
            if row not in metadata:
                metadata[row] = read_metadata(stored.metadata)
            hits.append(
                Hit(
                    stored.doc_id,
                    score,
                    stored.text,
                    title=stored.title,
                    metadata=metadata[row],
                    passage=stored.number,
                    scores={part: score},
                    source=stored.source,
                    start=stored.start,
                    stop=stored.stop,
                )
            )
        results.append(hits)
    return results


def text_hits(
    database: Database, snapshot: Snapshot, query: str, condition: Filter | None, *, k: int, group: bool
) -> list[Hit]:
    """Return up to k hits for a query by its words, as `make_hits` does."""
    terms = find_terms(query, database.version)
    width = 4 * k if group else k
    while True:
        found = search_words(database, terms, width, condition)
        (hits,) = make_hits(database, snapshot, found, k=k, width=width, group=group, part="text")
        if not group or len(hits) == k or found.rows.shape[1] < width:
            return hits
        width *= 4


def name_hits(
    database: Database,
    snapshot: Snapshot,
    found: Candidates,
    names: Names,
    *,
    k: int,
    width: int,
    group: bool,
) -> list[list[tuple[str, float]]]:
    """Return what `make_hits` does, as (doc_id, score) alone; what is read is added to `names` and not read again.

    Raises:
        IndexFileError: a row has no passage, or text and vector do not belong together.
    """
    counts, rows = _wanted(found, width)

    def named() -> list[list[tuple[str, float]]]:
        ordered = _in_order(found, counts, names, k, group)
        return [list(zip(map(names.__getitem__, best), scores, strict=True)) for best, scores in ordered]

    try:
        return named()
    except (
        KeyError
    ):  # of a row that was not met before: to look for such first would take as long as all the rest
        if len(names) > MAX_NAMES:
            names.clear()
        new = sorted(set(rows.tolist()) - names.keys())
        passages = _read(database, snapshot, np.asarray(new, np.int64))
        names.update((row, stored.doc_id) for row, stored in passages.items())
        return named()


def _wanted(found: Candidates, width: int) -> tuple[RowArray, RowArray]:
    """Return how many of each query's candidates are as good as number `width`, (Q,), and the rows of all of these."""
    if not found.rows.shape[1]:
        return np.zeros(len(found.rows), np.int64), np.empty(0, np.int64)
    last = found.scores[:, min(width, found.rows.shape[1]) - 1 :][:, :1]
    wanted = (found.rows >= 0) & (found.scores >= last)  # (Q, K): the first few of each line
    return wanted.sum(axis=1), found.rows[wanted]


def _in_order(
    found: Candidates, counts: RowArray, names: Mapping[int, str], k: int, group: bool
) -> Iterator[tuple[list[int], list[float]]]:
    """Yield up to k rows of each query and their scores, best first; with `group` the first of each document.

    Ties go by id and then by row, in which the passages of a document have their order.
    """
    equal = (found.scores[:, 1:] == found.scores[:, :-1]) & (found.rows[:, 1:] >= 0)
    sort = equal.any(axis=1).tolist()
    lines = zip(found.rows.tolist(), found.scores.tolist(), counts.tolist(), sort, strict=True)
    for rows, scores, count, tied in lines:
        if not tied and not group:
            last = min(count, k)
            yield rows[:last], scores[:last]
            continue
        pairs = [(-score, names[row], row) for row, score in zip(rows[:count], scores[:count], strict=True)]
        pairs.sort()
        if group:
            best: dict[str, tuple[float, str, int]] = {}
            for pair in pairs:
                best.setdefault(pair[1], pair)
            pairs = list(best.values())
        yield [row for _, _, row in pairs[:k]], [-score for score, _, _ in pairs[:k]]


def _read(database: Database, snapshot: Snapshot, rows: RowArray) -> dict[int, StoredPassage]:
    """Return the passages of distinct rows, each proved to belong to its vector."""
    with reading(database.path):
        passages = read_passages(database, rows)
    for row, key in zip(rows.tolist(), snapshot.keys(rows).tolist(), strict=True):
        if row not in passages or passages[row].key != key:
            what = "has no passage" if row not in passages else "belongs to another text than its vector"
            folder = database.path.parent
            raise IndexFileError(f"{folder}: row {row} {what}. Run: embedkit index repair {folder}")
    return passages
