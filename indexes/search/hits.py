"""From candidate rows to hits: their documents, in order, each proved to be what was written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from embedkit.data.records import Hit
from embedkit.errors import IndexFileError

from ..candidates import Candidates, Mask
from ..storage.codes import FloatArray, RowArray
from ..storage.database import Database
from ..storage.documents import StoredPassage, doc_ids, passage_rows, read_passages
from ..storage.faults import reading
from ..storage.metadata import read_metadata
from .snapshot import Snapshot

RowScore = tuple[int, float]
T = TypeVar("T", int, tuple[str, int])
Names = dict[int, str]  # doc_id by row: a row never changes its document, nor is its number used again
Passages = dict[int, tuple[str, int]]  # doc_id and number of the passage by row
MAX_NAMES = 2**20  # about 150 MB
MAX_PASSAGES = 2**16  # about 15 MB


def best_rows(
    database: Database, found: Candidates, known: Passages, *, k: int, width: int, group: bool
) -> list[list[RowScore]]:
    """Return up to k rows for each query with their scores, best first, ties by id and passage.

    Candidates that are as good as number `width` are looked at, and with `group` the best passage of each document is kept.
    No document is read: the ids of those that stand in for one another are looked up, and added to what is `known`.

    Raises:
        IndexFileError: a row has no passage.
    """
    counts, rows = _wanted(found, width)
    if group or _tied(found).any():
        _look_up(database, rows.tolist(), known)
    ordered = _in_order(found, counts, lambda row: known[row][0], k, group)
    return [list(zip(best, scores, strict=True)) for best, scores in ordered]


def make_hits(
    database: Database,
    snapshot: Snapshot,
    chosen: Sequence[Sequence[RowScore]],
    scores: Sequence[Sequence[Mapping[str, float]]],
    *,
    bare: Passages | None = None,
) -> list[list[Hit]]:
    """Make hits of each query's rows, with the `scores` that each of them has beside the one it is ordered by.

    Where they are to be `bare`, they have ids, passages and scores alone, and no document is read: `fill_hits` reads those that are wanted.
    Of the rows what is not known yet is looked up, and added.

    Raises:
        IndexFileError: a row has no passage, or text and vector do not belong together.
    """
    # np.unique would load numpy.ma, a twentieth of the time of a search from a cold shell.
    distinct = sorted({row for best in chosen for row, _ in best})
    if bare is not None:
        _look_up(database, distinct, bare)
        return [
            [
                Hit(bare[row][0], score, passage=bare[row][1], scores=parts)
                for (row, score), parts in zip(best, some, strict=True)
            ]
            for best, some in zip(chosen, scores, strict=True)
        ]
    read = _read(database, snapshot, np.asarray(distinct, np.int64))
    stored = {row: _stored_hit(passage) for row, passage in read.items()}
    return [
        [stored[row].scored(score, parts) for (row, score), parts in zip(best, some, strict=True)]
        for best, some in zip(chosen, scores, strict=True)
    ]


def scores_as(part: str, chosen: Sequence[Sequence[RowScore]]) -> list[list[Mapping[str, float]]]:
    """Return the scores of rows as `Hit.scores` has them, where they are called `part`."""
    return [[{part: score} for _, score in best] for best in chosen]


def fill_hits(database: Database, snapshot: Snapshot, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
    """Add to bare hits what their documents hold.

    Raises:
        IndexFileError: a hit has no passage, or text and vector do not belong together.
    """
    places = {(hit.doc_id, hit.passage) for some in hits for hit in some}
    with reading(database.path):
        rows = passage_rows(database, list(places))
    rows = {place: row for place, row in rows.items() if place in places}
    _check_there(database, places, rows)
    passages = _read(database, snapshot, np.asarray(sorted(rows.values()), np.int64))
    stored = {place: _stored_hit(passages[row]) for place, row in rows.items()}
    return [[stored[hit.doc_id, hit.passage].scored(hit.score, hit.scores) for hit in some] for some in hits]


def _stored_hit(stored: StoredPassage) -> Hit:
    """Return what is stored of a passage as a hit that has no score yet."""
    return Hit(
        stored.doc_id,
        0.0,
        stored.text,
        title=stored.title,
        metadata=read_metadata(stored.metadata),
        passage=stored.number,
        source=stored.source,
        start=stored.start,
        stop=stored.stop,
        place=stored.place,
    )


def rows_by_words(
    database: Database,
    snapshot: Snapshot,
    search: Callable[[int], Candidates],
    count_documents: Callable[[], int],
    known: Passages,
    *,
    k: int,
    group: bool,
    vector: FloatArray | None = None,
) -> tuple[list[RowScore], list[Mapping[str, float]]]:
    """Return up to k rows for a query by its words, as `best_rows` does, and their scores as `Hit.scores` has them.

    `search` finds the best so many rows; `count_documents` says how many documents there are that a grouped search may find. What is looked
    up of rows is added to what is `known`. With the query's vector (E,) they are scored by that as well.
    """
    width = 4 * k if group else k
    while True:
        found = search(width)
        (best,) = best_rows(database, found, known, k=k, width=width, group=group)
        # All passages of the best may belong to a few documents: look further, where there are others.
        if not group or len(best) == k or found.rows.shape[1] < width or len(best) == count_documents():
            break
        width *= 4
    if vector is None or not best:
        return best, [{"text": score} for _, score in best]
    rows = np.asarray([[row for row, _ in best]], np.int64)
    (dense,) = snapshot.pair_scores(vector[None], rows).tolist()
    return best, [{"text": score, "dense": other} for (_, score), other in zip(best, dense, strict=True)]


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
    """Return (doc_id, score) of what `best_rows` finds, each proved as `make_hits` does it; what is read is added to `names` and not read again.

    Raises:
        IndexFileError: a row has no passage, or text and vector do not belong together.
    """
    counts, rows = _wanted(found, width)

    def named() -> list[list[tuple[str, float]]]:
        ordered = _in_order(found, counts, names.__getitem__, k, group)
        return [list(zip(map(names.__getitem__, best), scores, strict=True)) for best, scores in ordered]

    try:
        return named()
    except (
        KeyError
    ):  # of a row that was not met before: to look for such first would take as long as all the rest
        if len(names) > MAX_NAMES:
            names.clear()
        new = _unknown(rows.tolist(), names)
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
    found: Candidates, counts: RowArray, name_of: Callable[[int], str], k: int, group: bool
) -> Iterator[tuple[list[int], list[float]]]:
    """Yield up to k rows of each query and their scores, best first; with `group` the first of each document.

    Ties go by id and then by row, in which the passages of a document have their order.
    """
    sort = _tied(found).tolist()
    lines = zip(found.rows.tolist(), found.scores.tolist(), counts.tolist(), sort, strict=True)
    for rows, scores, count, tied in lines:
        if not tied and not group:
            last = min(count, k)
            yield rows[:last], scores[:last]
            continue
        pairs = [(-score, name_of(row), row) for row, score in zip(rows[:count], scores[:count], strict=True)]
        pairs.sort()
        if group:
            best: dict[str, tuple[float, str, int]] = {}
            for pair in pairs:
                best.setdefault(pair[1], pair)
            pairs = list(best.values())
        yield [row for _, _, row in pairs[:k]], [-score for score, _, _ in pairs[:k]]


def _tied(found: Candidates) -> Mask:
    """Say for each query whether two of its candidates have the same score: (Q,)."""
    equal = (found.scores[:, 1:] == found.scores[:, :-1]) & (found.rows[:, 1:] >= 0)
    return np.asarray(equal.any(axis=1))


def _unknown(rows: Iterable[int], known: Container[int]) -> list[int]:
    """Return the rows that are not known, in order. A set less the keys of a dict would go through all that it knows."""
    return sorted({row for row in rows if row not in known})


def _look_up(database: Database, rows: Sequence[int], known: Passages) -> None:
    """Add the document and passage of each row."""
    new = _unknown(rows, known)
    if new:
        with reading(database.path):
            known.update(doc_ids(database, np.asarray(new, np.int64)))
        _check_there(database, new, known)


def _check_there(database: Database, wanted: Collection[T], found: Container[T]) -> None:
    missing = [each for each in wanted if each not in found]
    if missing:
        raise _damaged(database, min(missing), "has no passage")


def _damaged(database: Database, row: object, what: str) -> IndexFileError:
    folder = database.path.parent
    return IndexFileError(f"{folder}: row {row} {what}. Run: embedkit index repair {folder}")


def _read(database: Database, snapshot: Snapshot, rows: RowArray) -> dict[int, StoredPassage]:
    """Return the passages of distinct rows, each proved to belong to its vector."""
    with reading(database.path):
        passages = read_passages(database, rows)
    for row, key in zip(rows.tolist(), snapshot.keys(rows).tolist(), strict=True):
        if row not in passages or passages[row].key != key:
            what = "has no passage" if row not in passages else "belongs to another text than its vector"
            raise _damaged(database, row, what)
    return passages
