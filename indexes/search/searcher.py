"""What a reader sees of an index, one commit until `refresh`, and its search by vectors and by words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from embedkit.data.records import Hit
from embedkit.errors import IndexFileError
from embedkit.retrieval.vectors import Vectors

from ..candidates import Candidates
from ..storage.codes import FloatArray, RowArray
from ..storage.database import Database
from ..storage.documents import count_documents
from ..storage.faults import reading
from ..storage.segment import MappedSegment
from ..storage.settings import Settings
from .ann_file import AnnFile
from .conditions import condition_of
from .exact import MissedFaiss
from .hits import (
    MAX_PASSAGES,
    Names,
    Passages,
    RowScore,
    best_rows,
    fill_hits,
    make_hits,
    name_hits,
    rows_by_words,
    scores_as,
)
from .search import KindParts, SearchRequest, search_made
from .shared_scans import SharedScans
from .shared_text import RowLengths, SharedText, TextStatistics
from .snapshot import Snapshot
from .text import filtered_rows, find_terms, search_words

WordSearch = Callable[[str], Callable[[int], Candidates]]  # of a query, the best so many rows
MAX_FILTERS = 8  # remembered


class Searcher:
    """One commit of an index, and what its searches have learned of it.

    `device` is where exact search computes. A writer sees what it has committed itself, so that it holds no read
    transaction.
    """

    def __init__(
        self,
        path: Path,
        database: Database,
        settings: Settings,
        parts: KindParts,
        *,
        device: str | None,
        writes: bool,
    ) -> None:
        self._path, self._database, self._settings, self._parts = path, database, settings, parts
        self._device, self._writes = device, writes
        self._filters: dict[str, RowArray] = {}
        self._names: Names = {}
        self._passages: Passages = {}
        self._lengths: RowLengths | None = None
        self._documents: int | None = None  # that have a passage
        self._missed = MissedFaiss()
        self._scans: SharedScans | None = None
        self.shared_fields: Sequence[str] | None = None  # of a shard: the fields of all
        self._version = 0
        self.ann: AnnFile | None = None
        self.snapshot = self._take(())
        self._open_ann()

    def close(self) -> None:
        if self.ann is not None:
            self.ann.close()

    def refresh(self) -> None:
        """See what has been committed since."""
        self.snapshot = self._take(self.snapshot.segments)
        self._filters.clear()
        self._lengths = self._documents = None
        self._open_ann()

    def follow(self) -> bool:
        """Begin a new read transaction, and see what has been committed since; say whether anything was.

        Where nothing was, what is mapped and known stays: it takes microseconds.
        """
        with reading(self._database.path):
            self._database.begin_snapshot()
            if self._database.data_version == self._version:
                return False
        self.refresh()
        return True

    def _take(self, known: Sequence[MappedSegment]) -> Snapshot:
        missing = ""
        while True:
            with reading(self._database.path):
                if not self._writes:
                    self._database.begin_snapshot()
                    self._version = self._database.data_version
                try:
                    taken = Snapshot.take(
                        self._path,
                        self._database,
                        self._settings,
                        self._parts.payload,
                        missed=self._missed,
                        known=known,
                    )
                    return taken if self._scans is None else taken.sharing(self._scans)
                except FileNotFoundError as exc:
                    # A compaction may remove files between our look at the database and this; then a newer
                    # snapshot does not name the file any more.
                    if self._writes or str(exc.filename) == missing:
                        raise IndexFileError(
                            f"{exc.filename}: the segment is missing, though the database names it. "
                            f"Run: embedkit index repair {self._path}"
                        ) from exc
                    missing = str(exc.filename)

    def _open_ann(self) -> None:
        info = self._database.ann()
        if self.ann is not None and (info is None or self.ann.info.name != info.name):
            self.ann.close()
            self.ann = None
        if info is not None and self.ann is None:
            with suppress(FileNotFoundError):  # derived, and safe to delete: search is exact without it
                self.ann = AnnFile(self._path, info)
        elif info is not None and self.ann is not None:
            self.ann.info = info  # new knobs

    def request(
        self, *, k: int, where: str | None, group: bool, exact: bool, knobs: Mapping[str, int] | None
    ) -> SearchRequest:
        """Say what a search by vectors is to find, the filter looked up.

        Raises:
            FilterError: the filter cannot be understood.
        """
        _check_k(k)
        rows = None if where is None else self.rows_of(where)
        return SearchRequest(k=k, rows=rows, group=group, exact=exact, knobs=knobs, device=self._device)

    def share_scans(self, scans: SharedScans) -> None:
        """Share segments, and passes over all vectors, with other handles of this index."""
        self._scans = scans
        self.snapshot = self.snapshot.sharing(scans)

    def share_fields(self, names: Sequence[str] | None) -> None:
        """Take other fields than those of this index for the ones that a filter may name."""
        if names != self.shared_fields:
            self.shared_fields = names
            self._filters.clear()  # a name with a dot may mean something else now

    def rows_of(self, where: str) -> RowArray:
        """Return the rows that a filter lets pass, remembered for this snapshot."""
        if where not in self._filters:
            if len(self._filters) >= MAX_FILTERS:
                self._filters.clear()
            with reading(self._database.path):
                condition = condition_of(self._database, where, self.shared_fields)
                self._filters[where] = filtered_rows(self._database, condition)
        return self._filters[where]

    def hits(self, queries: Vectors, request: SearchRequest, *, bare: bool = False) -> list[list[Hit]]:
        """Return up to k hits for each of the prepared queries (Q, E), best first, ties by id; `bare` as in `make_hits`."""
        known = self._known()

        def make(found: Candidates, width: int) -> list[list[RowScore]]:
            return best_rows(self._database, found, known, k=request.k, width=width, group=request.group)

        count = partial(self._num_documents, request.rows)
        chosen = search_made(self._find, self.snapshot, queries, request, make, count)
        part = "sparse" if self._settings.kind == "sparse" else "dense"
        scores = scores_as(part, chosen)
        return make_hits(self._database, self.snapshot, chosen, scores, bare=known if bare else None)

    def _known(self) -> Passages:
        """Return what has been looked up of rows so far; not more than a few megabytes of it are kept."""
        if len(self._passages) > MAX_PASSAGES:
            self._passages.clear()
        return self._passages

    def _num_documents(self, rows: RowArray | None) -> int:
        """Count the documents that have a passage, or of some rows those that these are of."""
        with reading(self._database.path):
            if rows is not None:
                return count_documents(self._database, rows)
            if self._documents is None:
                self._documents = count_documents(self._database)
            return self._documents

    def _find(self, queries: Vectors, width: int, request: SearchRequest) -> Iterator[Candidates]:
        return self._parts.search_rows(self.snapshot, self.ann, queries, width, request)

    def fill(self, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        """Add to bare hits what their documents hold."""
        return fill_hits(self._database, self.snapshot, hits)

    def ids(self, queries: Vectors, request: SearchRequest) -> list[list[tuple[str, float]]]:
        """Return (doc_id, score) of what `hits` finds; an id is read from the database, and proved, once."""

        def make(found: Candidates, width: int) -> list[list[tuple[str, float]]]:
            return name_hits(
                self._database,
                self.snapshot,
                found,
                self._names,
                k=request.k,
                width=width,
                group=request.group,
            )

        count = partial(self._num_documents, request.rows)
        return search_made(self._find, self.snapshot, queries, request, make, count)

    def passages(self, rows: RowArray) -> tuple[list[Hit], FloatArray]:
        """Return what stands in some rows, as hits of score 1, and their vectors (N, E); (N, 0) where not one a passage."""
        rows = rows[self.snapshot.present[rows]]
        if not len(rows):
            return [], np.empty((0, self._settings.dimension), np.float32)
        chosen = [[(int(row), 1.0) for row in rows]]
        (hits,) = make_hits(self._database, self.snapshot, chosen, scores_as("dense", chosen))
        if self._settings.kind != "dense":
            return hits, np.empty((len(rows), 0), np.float32)
        return hits, self.snapshot.gather(rows)

    def text_hits(
        self,
        queries: Sequence[str],
        *,
        k: int,
        where: str | None,
        group: bool,
        bare: bool = False,
        statistics: TextStatistics | None = None,
        vectors: FloatArray | None = None,
    ) -> list[list[Hit]]:
        """Return up to k hits for each query by BM25 over the words, best first, ties by id; `bare` as in `make_hits`.

        With `statistics` of the whole collection that this is a shard of, the scores are by these. With the prepared vectors of the queries
        (Q, E) hits have their scores by these, too, beside the one of their words.
        """
        _check_k(k)
        known = self._known()
        with reading(self._database.path):
            search = self._by_words(where) if statistics is None else self._by_shared_words(where, statistics)
            found = [
                rows_by_words(
                    self._database,
                    self.snapshot,
                    search(query),
                    lambda: self._num_documents(None if where is None else self.rows_of(where)),
                    known,
                    k=k,
                    group=group,
                    vector=None if vectors is None else vectors[number],
                )
                for number, query in enumerate(queries)
            ]
        chosen, scores = [best for best, _ in found], [parts for _, parts in found]
        return make_hits(self._database, self.snapshot, chosen, scores, bare=known if bare else None)

    def _by_words(self, where: str | None) -> WordSearch:
        database = self._database
        condition = None if where is None else condition_of(database, where, self.shared_fields)

        def search(query: str) -> Callable[[int], Candidates]:
            terms = find_terms(query, database.version)
            return lambda width: search_words(database, terms, width, condition)

        return search

    def _by_shared_words(self, where: str | None, statistics: TextStatistics) -> WordSearch:
        database = self._database
        rows = None if where is None else self.rows_of(where)
        if self._lengths is None:
            self._lengths = RowLengths(database, self.snapshot.next_row)
        shared = SharedText(database, self._lengths, statistics, rows)
        return lambda query: partial(shared.search, find_terms(query, database.version))


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
