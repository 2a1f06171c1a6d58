"""Index: documents and their vectors on disk; create, open, add, delete, search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from embedkit.data.records import Document, Hit
from embedkit.errors import IndexFileError

from .candidates import Candidates
from .search.filters import compile_filter
from .search.hits import Names, make_hits, name_hits, text_hits
from .search.search import AnnFile, SearchRequest, search_made
from .search.snapshot import Snapshot
from .search.text import filtered_documents, filtered_rows
from .storage.commit import WHOLE, Addition, Change, Writer, database_path, new_folder, prepare_vectors
from .storage.database import Database, reading
from .storage.documents import (
    Passage,
    content_hash,
    duplicate_id,
    find_documents,
    metadata_json,
    read_documents,
)
from .storage.lock import WriterLock
from .storage.merging import merge_newest
from .storage.segment import FloatArray, RowArray
from .storage.settings import Fingerprint, Settings

# Small commits make small segments; beyond this many the newest are merged.
MAX_SEGMENTS = 16


@dataclass(frozen=True)
class Deleted:
    """What `delete` did: how many documents went, and which of the ids asked for are not here."""

    documents: int
    missing: Sequence[str]


class Index:
    """One index, open for reading, or for writing too. A reader sees one commit until `refresh`."""

    def __init__(self, path: Path, database: Database, lock: WriterLock | None, device: str | None) -> None:
        """Use `Index.create` or `Index.open`."""
        self.path, self.database, self._lock = path, database, lock
        with reading(database.path):
            text = database.checked_meta("settings")
        assert text is not None
        self.settings = Settings.from_json(text)
        self.writer = None if lock is None else Writer(path, database, self.settings)
        self._device = device
        self._filters: dict[str, RowArray] = {}
        self._names: Names = {}
        self.ann: AnnFile | None = None
        self._snapshot: Snapshot | None = None
        self.refresh()

    @classmethod
    def create(cls, path: str | Path, settings: Settings) -> Index:
        """Make an empty index in a new or empty folder and open it for writing.

        Raises:
            IndexFileError: something is there already, or the folder cannot be written.
        """
        folder = new_folder(Path(path))
        lock = WriterLock(folder)
        try:
            Database.create(database_path(folder), settings.to_json())
        except BaseException:
            lock.release()
            raise
        return cls._open(folder, lock, None)

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False, device: str | None = None) -> Index:
        """Open an index that is there.

        `device` is None for this machine's processors, or a torch device such as 'cuda'.

        Raises:
            IndexFileError: there is none, it is damaged, of a newer version, or another process writes to it.
        """
        folder = Path(path)
        if not database_path(folder).is_file():
            there = "there is no such folder" if not folder.is_dir() else "the folder holds no 'index.sqlite'"
            raise IndexFileError(
                f"{folder}: {there}. Make an index with: embedkit index build INPUT --index {folder}"
            )
        return cls._open(folder, WriterLock(folder) if writable else None, device)

    @classmethod
    def _open(cls, folder: Path, lock: WriterLock | None, device: str | None) -> Index:
        try:
            database = Database(database_path(folder), writable=lock is not None)
            try:
                return cls(folder, database, lock, device)
            except BaseException:
                database.close()
                raise
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def close(self) -> None:
        self.database.close()
        if self.ann is not None:
            self.ann.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def snapshot(self) -> Snapshot:
        assert self._snapshot is not None
        return self._snapshot

    def __len__(self) -> int:
        """Count the vectors that can be found."""
        return self.snapshot.num_rows

    def refresh(self) -> None:
        """See what has been committed since the index was opened."""
        known = () if self._snapshot is None else self._snapshot.segments
        missing = ""
        while True:
            with reading(self.database.path):
                if self.writer is None:
                    self.database.begin_snapshot()
                try:
                    self._snapshot = Snapshot.take(self.path, self.database, self.settings, known)
                    break
                except FileNotFoundError as exc:
                    # A compaction may remove files between our look at the database and this; then a newer
                    # snapshot does not name the file any more.
                    if self.writer is not None or str(exc.filename) == missing:
                        raise IndexFileError(
                            f"{exc.filename}: the segment is missing, though the database names it. "
                            f"Run: embedkit index repair --index {self.path}"
                        ) from exc
                    missing = str(exc.filename)
        self._filters.clear()
        info = self.database.ann()
        if self.ann is not None and (info is None or self.ann.info.name != info.name):
            self.ann.close()
            self.ann = None
        if info is not None and self.ann is None:
            with suppress(FileNotFoundError):  # derived, and safe to delete: search is exact without it
                self.ann = AnnFile(self.path, info)
        elif info is not None and self.ann is not None:
            self.ann.info = info  # new knobs

    def check_encoder(self, fingerprint: Fingerprint | None) -> None:
        """Refuse queries from an encoder that did not make the vectors here.

        Raises:
            IndexMismatchError: some field of the fingerprint differs; the message names each with both values.
        """
        self.settings.check_encoder(fingerprint, str(self.path))

    @property
    def model_path(self) -> str | None:
        """Where the encoder's folder lay when it was last used here: a hint only, the fingerprint decides."""
        found = self.database.meta("model_path")
        return None if found is None else str(found)

    def note_model_path(self, path: str) -> None:
        """Remember where the encoder's folder lies, so that a search need not name it."""
        self.need_writer()
        with self.database.transaction():
            self.database.set_meta("model_path", path)

    def need_writer(self) -> Writer:
        if self.writer is None:
            raise ValueError(f"{self.path} was opened for reading; open it with writable=True")
        return self.writer

    # Changing

    def add(
        self,
        documents: Sequence[Document],
        vectors: FloatArray,
        *,
        passages: Sequence[Sequence[Passage]] | None = None,
    ) -> int:
        """Add documents with their vectors in one commit, each in place of what has its id; return how many are new.

        Without `passages` a document is one passage, its whole text. Vectors are (sum of passages, E), in order.

        Raises:
            RecordError: an id stands twice among the documents.
            IndexMismatchError: the vectors do not fit the documents or the index.
        """
        writer = self.need_writer()
        cuts = [WHOLE] * len(documents) if passages is None else passages
        names = [repr(doc.doc_id) for doc, cut in zip(documents, cuts, strict=True) for _ in cut]
        prepared = prepare_vectors(vectors, self.settings, names)
        seen: dict[str, Document] = {}
        for document in documents:
            other = seen.setdefault(document.doc_id, document)
            if other is not document:
                raise duplicate_id(document.doc_id, other.where, document.where)
        additions = []
        for document, cut in zip(documents, cuts, strict=True):
            metadata = metadata_json(document.metadata)
            digest = content_hash(document.doc_id, document.title, document.text, metadata)
            additions.append(Addition(document, metadata, digest, cut))
        old = find_documents(self.database, list(seen))
        fields = frozenset(name for document in documents for name in document.metadata)
        change = Change(additions, (), [key for key, _, _ in old.values()], fields)
        writer.commit(change, prepared)
        self.settle()
        return len(documents) - len(old)

    def delete(self, doc_ids: Sequence[str] = (), *, where: str | None = None) -> Deleted:
        """Delete documents by id, and those that a filter matches, in one commit.

        Raises:
            FilterError: the filter cannot be understood.
        """
        writer = self.need_writer()
        found = find_documents(self.database, doc_ids)
        keys = {key for key, _, _ in found.values()}
        if where is not None:
            keys.update(filtered_documents(self.database, compile_filter(where, self.database.field_names())))
        if keys:
            writer.commit(
                Change(deleted_keys=sorted(keys)), np.empty((0, self.settings.dimension), np.float32)
            )
            self.settle()
        return Deleted(len(keys), tuple(dict.fromkeys(doc_id for doc_id in doc_ids if doc_id not in found)))

    def document(self, doc_id: str) -> Document | None:
        """Return a document, or None where there is none of this id."""
        with reading(self.database.path):
            found = find_documents(self.database, [doc_id])
            if doc_id not in found:
                return None
            return read_documents(self.database, found[doc_id][0] - 1, 1)[0].document

    def first_documents(self, count: int) -> list[Document]:
        """Return the documents that came first, up to `count`."""
        with reading(self.database.path):
            return [stored.document for stored in read_documents(self.database, 0, count)]

    def known_ids(self, doc_ids: Sequence[str]) -> set[str]:
        """Return which of the ids are here."""
        with reading(self.database.path):
            return set(find_documents(self.database, doc_ids))

    def settle(self) -> None:
        """Merge the newest segments where they have become many, and see the new state."""
        self.refresh()
        if len(self.snapshot.segments) > MAX_SEGMENTS:
            merge_newest(self.need_writer(), self.snapshot.segments, self.snapshot.alive)
            self.refresh()

    # Searching

    def search(
        self,
        queries: FloatArray,
        *,
        k: int = 10,
        where: str | None = None,
        group: bool = False,
        exact: bool = False,
        knobs: Mapping[str, int] | None = None,
    ) -> list[list[Hit]]:
        """Return up to k hits for each of (Q, E) queries, best first, ties by id.

        `group` gives one hit a document, its best passage. `exact` looks at every vector even where there is an ANN
        structure; `knobs` stand in for the ones it was tuned to.

        Raises:
            IndexMismatchError: queries of another dimension, or such as have no score.
            IndexFileError: what the search met is damaged.
        """

        def make(found: Candidates, width: int) -> list[list[Hit]]:
            return make_hits(self.database, self.snapshot, found, k=k, width=width, group=group, part="dense")

        return search_made(
            self.snapshot,
            self.ann,
            self._prepared(queries),
            self._request(k, where, group, exact, knobs),
            make,
        )

    def search_ids(
        self,
        queries: FloatArray,
        *,
        k: int = 10,
        where: str | None = None,
        group: bool = False,
        exact: bool = False,
        knobs: Mapping[str, int] | None = None,
    ) -> list[list[tuple[str, float]]]:
        """Return (doc_id, score) of what `search` finds and nothing else of it, several times faster for a batch.

        An id is read from the database, and proved, once; then it is remembered.
        """

        def make(found: Candidates, width: int) -> list[list[tuple[str, float]]]:
            return name_hits(self.database, self.snapshot, found, self._names, k=k, width=width, group=group)

        return search_made(
            self.snapshot,
            self.ann,
            self._prepared(queries),
            self._request(k, where, group, exact, knobs),
            make,
        )

    def _prepared(self, queries: FloatArray) -> FloatArray:
        names = [f"query {number}" for number in range(1, len(queries) + 1)]
        return prepare_vectors(queries, self.settings, names)

    def _request(
        self, k: int, where: str | None, group: bool, exact: bool, knobs: Mapping[str, int] | None
    ) -> SearchRequest:
        _check_k(k)
        rows = None if where is None else self._rows_of(where)
        return SearchRequest(k=k, rows=rows, group=group, exact=exact, knobs=knobs, device=self._device)

    def search_text(
        self, queries: Sequence[str], *, k: int = 10, where: str | None = None, group: bool = False
    ) -> list[list[Hit]]:
        """Return up to k hits for each query by BM25 over the words, best first, ties by id."""
        _check_k(k)
        with reading(self.database.path):
            condition = None if where is None else compile_filter(where, self.database.field_names())
            return [
                text_hits(self.database, self.snapshot, query, condition, k=k, group=group)
                for query in queries
            ]

    def _rows_of(self, where: str) -> RowArray:
        """Return the rows that a filter lets pass, remembered for this snapshot."""
        if where not in self._filters:
            if len(self._filters) >= 8:
                self._filters.clear()
            with reading(self.database.path):
                condition = compile_filter(where, self.database.field_names())
                self._filters[where] = filtered_rows(self.database, condition)
        return self._filters[where]


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
