"""Index: documents and their vectors on disk; create, open, add, delete, search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from embedkit.data.records import Document, Hit
from embedkit.errors import IndexFileError, IndexMismatchError
from embedkit.retrieval.strength import CosineNoise
from embedkit.retrieval.vectors import TextVectors, Vectors

from .kinds import parts_of
from .search.ann_file import AnnFile
from .search.conditions import Misuse, condition_of, misuses
from .search.fields import field_kinds
from .search.searcher import Searcher
from .search.shared_text import TextStatistics, text_statistics
from .search.snapshot import Snapshot
from .search.text import filtered_documents, find_terms, text_limits
from .sharded.shards_file import is_sharded
from .storage.codes import FloatArray, RowArray
from .storage.commit import WHOLE, Addition, Change, Writer
from .storage.database import Database
from .storage.documents import (
    Passage,
    count_passages,
    document_ids,
    duplicate_id,
    find_documents,
    read_documents,
)
from .storage.faults import reading
from .storage.layout import DATABASE_NAME, database_path, empty_folder, is_index
from .storage.lock import WriterLock
from .storage.merging import merge_newest
from .storage.metadata import read_metadata
from .storage.schema import create_database, version_of
from .storage.settings import Fingerprint, Settings

if TYPE_CHECKING:
    from .maintenance.field_values import FieldValues
    from .search.shared_scans import SharedScans

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
        parts = parts_of(self.settings, database)
        self._payload = parts.payload
        self.writer = None if lock is None else Writer(path, database, parts.payload)
        self._searcher = Searcher(
            path, database, self.settings, parts, device=device, writes=lock is not None
        )

    @classmethod
    def create(cls, path: str | Path, settings: Settings) -> Index:
        """Make an empty index in a new or empty folder and open it for writing.

        Raises:
            IndexFileError: something is there already, or the folder cannot be written.
        """
        folder = empty_folder(Path(path))
        lock = WriterLock(folder)
        try:
            create_database(database_path(folder), settings.to_json(), version=version_of(settings.kind))
        except BaseException:
            lock.release()
            raise
        return cls._open(folder, lock, None)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        writable: bool = False,
        device: str | None = None,
        allow_regex: bool = True,
    ) -> Index:
        """Open an index that is there.

        `device` is None for this machine's processors, or a torch device such as 'cuda'. Without `allow_regex` filters with regular
        expressions are refused, as a server does it with those of its clients.

        Raises:
            IndexFileError: there is none, it is damaged, of a newer version, or another process writes to it.
        """
        folder = Path(path)
        if is_sharded(folder):
            raise IndexFileError(
                f"{folder}: this index lies in shards, which are searched, but not changed or looked into as one. "
                f"Make one index of them with: embedkit index merge NEW.index {folder}"
            )
        if not is_index(folder):
            there = (
                "there is no such folder" if not folder.is_dir() else f"the folder holds no {DATABASE_NAME!r}"
            )
            raise IndexFileError(
                f"{folder}: {there}. Make an index with: embedkit index build INPUT --index {folder}"
            )
        lock = WriterLock(folder) if writable else None
        return cls._open(folder, lock, device, allow_regex=allow_regex)

    @classmethod
    def _open(
        cls, folder: Path, lock: WriterLock | None, device: str | None, *, allow_regex: bool = True
    ) -> Index:
        try:
            database = Database(database_path(folder), writable=lock is not None, allow_regex=allow_regex)
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
        self._searcher.close()
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
        return self._searcher.snapshot

    @property
    def ann(self) -> AnnFile | None:
        return self._searcher.ann

    @property
    def noise(self) -> CosineNoise | None:
        """How alike the vectors here are; None where they are too few to say."""
        return self.snapshot.noise

    def vectors_at(self, places: RowArray) -> FloatArray:
        """Return the vectors at places among those that can be found, in the order of their rows, (N, E) float32."""
        return self.snapshot.vectors_at(places)

    def __len__(self) -> int:
        """Count the vectors that can be found."""
        return self.snapshot.num_rows

    def refresh(self) -> None:
        """See what has been committed since the index was opened."""
        self._searcher.refresh()

    def follow(self) -> bool:
        """As `refresh`, but nearly free where nothing was committed; say whether anything was."""
        return self._searcher.follow()

    def take_coverage(self) -> None:
        """There are no shards that a search may lack."""

    @property
    def state(self) -> object:
        """What differs after a commit from what it was before; of this handle alone."""
        return self.database.data_version

    def limit_cache(self, num_bytes: int) -> None:
        """Keep so much of the database in this handle's own memory."""
        self.database.limit_cache(num_bytes)

    def share_scans(self, scans: SharedScans) -> None:
        """Share segments, and passes over all vectors, with other handles of this index that have the same `scans`."""
        self._searcher.share_scans(scans)

    def rest(self) -> None:
        """Let go of the commit, so that writers can take their log into the database; `follow` comes before the next search."""
        self.database.end_snapshot()

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
        vectors: Vectors,
        *,
        passages: Sequence[Sequence[Passage]] | None = None,
    ) -> int:
        """Add documents with their vectors in one commit, each in place of what has its id; return how many are new.

        Without `passages` a document is one passage, its whole text. Vectors are (sum of passages, E), in order;
        in a multi-vector index the `TokenVectors` of so many texts.

        Raises:
            RecordError: an id occurs twice among the documents.
            IndexMismatchError: the vectors do not fit the documents or the index.
        """
        writer = self.need_writer()
        cuts = [WHOLE] * len(documents) if passages is None else passages
        names = [repr(doc.doc_id) for doc, cut in zip(documents, cuts, strict=True) for _ in cut]
        prepared = self._payload.prepare(vectors, names)
        seen: dict[str, Document] = {}
        for document in documents:
            other = seen.setdefault(document.doc_id, document)
            if other is not document:
                raise duplicate_id(document.doc_id, other.where, document.where)
        additions = [Addition.of(document, cut) for document, cut in zip(documents, cuts, strict=True)]
        old = find_documents(self.database, list(seen))
        fields = frozenset(name for document in documents for name in document.metadata)
        change = Change(additions, (), [known.doc_key for known in old.values()], fields)
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
        keys = {known.doc_key for known in found.values()}
        if where is not None:
            keys.update(filtered_documents(self.database, condition_of(self.database, where)))
        if keys:
            writer.commit(Change(deleted_keys=sorted(keys)))
            self.settle()
        return Deleted(len(keys), tuple(dict.fromkeys(doc_id for doc_id in doc_ids if doc_id not in found)))

    def document(self, doc_id: str) -> Document | None:
        """Return a document, or None where there is none of this id."""
        with reading(self.database.path):
            found = find_documents(self.database, [doc_id])
            if doc_id not in found:
                return None
            stored = read_documents(self.database, found[doc_id].doc_key - 1, 1)[0]
        return replace(stored.document, metadata=read_metadata(stored.metadata))

    def passages(self, doc_id: str) -> tuple[list[Hit], FloatArray]:
        """Return the passages of a document in order, as hits of score 1, with their vectors (N, E); none where it is not here."""
        with reading(self.database.path):
            found = find_documents(self.database, [doc_id])
            stored = read_documents(self.database, found[doc_id].doc_key - 1, 1) if doc_id in found else []
            rows = np.array([row for document in stored for row, _, _ in document.passages], np.int64)
        return self._searcher.passages(rows)

    def first_documents(self, count: int) -> list[Document]:
        """Return the documents that came first, up to `count`."""
        with reading(self.database.path):
            return [stored.document for stored in read_documents(self.database, 0, count)]

    def ids_of(self, keys: Sequence[int]) -> list[str]:
        """Return the ids of documents by their keys, in order."""
        with reading(self.database.path):
            return document_ids(self.database, keys)

    def count_matching(self, where: str) -> tuple[int, list[str]]:
        """Return how many documents a filter matches, and the ids of the first few.

        Raises:
            FilterError: the filter cannot be understood.
        """
        with reading(self.database.path):
            keys = filtered_documents(self.database, condition_of(self.database, where))
            return len(keys), document_ids(self.database, sorted(keys)[:5])

    def count_rows(self, where: str | None = None) -> int:
        """Count the vectors that can be found, or those of them that a filter lets pass.

        Raises:
            FilterError: the filter cannot be understood.
        """
        return len(self) if where is None else len(self._searcher.rows_of(where))

    def field_names(self) -> list[str]:
        """Return the names of the metadata fields."""
        with reading(self.database.path):
            return self.database.field_names()

    def field_values(self) -> list[FieldValues]:
        """Return what the metadata hold (`indexes.field_values`)."""
        from .maintenance.field_values import field_values

        return field_values(self)

    def share_fields(self, names: Sequence[str] | None) -> None:
        """Be a shard of an index that knows these fields: a filter may name them, and `misuses` says what it would be refused for.

        With None it is an index of its own again.
        """
        self._searcher.share_fields(names)

    def misuses(self, where: str) -> list[Misuse]:
        """Say of each use of a field in a filter what a shard has against it, after `share_fields`.

        Raises:
            FilterError: the filter cannot be understood.
        """
        with reading(self.database.path):
            return misuses(self.database, where, self._searcher.shared_fields or ())

    def count_documents(self) -> int:
        with reading(self.database.path):
            return self.database.count("documents")

    def field_kinds(self) -> dict[str, list[str]]:
        """Return each field of the metadata with JSON's names for the kinds of value that it has."""
        with reading(self.database.path):
            return field_kinds(self.database)

    def passage_counts(self, doc_ids: Sequence[str]) -> dict[str, int]:
        """Return id -> how many passages the document has; documents that are not here, or have none, are left out."""
        with reading(self.database.path):
            return count_passages(self.database, doc_ids)

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
        queries: Vectors,
        *,
        k: int = 10,
        where: str | None = None,
        group: bool = False,
        exact: bool = False,
        knobs: Mapping[str, int] | None = None,
        bare: bool = False,
    ) -> list[list[Hit]]:
        """Return up to k hits for each of (Q, E) queries, or of the `TokenVectors` of Q, best first, ties by id.

        `group` gives one hit a document, its best passage. `exact` looks at every vector even where there is an ANN
        structure; `knobs` stand in for the ones it was tuned to. `bare` hits have ids, passages and scores alone, until `fill`.

        Raises:
            IndexMismatchError: queries of another dimension, or such as have no score.
            IndexFileError: what the search met is damaged.
        """
        request = self._searcher.request(k=k, where=where, group=group, exact=exact, knobs=knobs)
        return self._searcher.hits(self._prepared(queries), request, bare=bare)

    def search_ids(
        self,
        queries: Vectors,
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
        request = self._searcher.request(k=k, where=where, group=group, exact=exact, knobs=knobs)
        return self._searcher.ids(self._prepared(queries), request)

    def _prepared(self, queries: Vectors) -> Vectors:
        # To hold an array against a protocol would take a tenth of a small search.
        ready = type(queries) is np.ndarray or self.settings.kind != "dense"
        if not ready and not isinstance(queries, TextVectors):
            queries = np.asarray(queries)
        if isinstance(queries, np.ndarray) and queries.ndim != 2:
            raise IndexMismatchError(
                f"queries have shape {queries.shape}; this index needs (Q, {self.settings.dimension}): a row a query, "
                "such as vector[None] for a single one"
            )
        names = [f"query {number}" for number in range(1, len(queries) + 1)]
        prepared: Vectors = self._payload.prepare(queries, names)
        return prepared

    def search_text(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        where: str | None = None,
        group: bool = False,
        bare: bool = False,
        statistics: TextStatistics | None = None,
        vectors: FloatArray | None = None,
    ) -> list[list[Hit]]:
        """Return up to k hits for each query by BM25 over the words, best first, ties by id; `bare` as in `search`.

        With `vectors` of the queries (Q, E), their hits also have the score that `search` would give them, as `scores["dense"]`.

        `statistics` are those of the collection that this is a shard of (`TextStatistics.total`), with every term of the queries: then
        the scores are those of one index of all.

        Raises:
            TypeError: `queries` is one string.
            IndexMismatchError: vectors of another dimension, or such as have no score.
        """
        if isinstance(queries, str):
            raise TypeError(f"queries is the string {queries[:60]!r}; it must be a sequence of strings")
        prepared = None if vectors is None else self._prepared(vectors)
        assert prepared is None or isinstance(prepared, np.ndarray)
        return self._searcher.text_hits(
            queries, k=k, where=where, group=group, bare=bare, statistics=statistics, vectors=prepared
        )

    def fill(self, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        """Add to bare hits of this snapshot what their documents hold.

        Raises:
            IndexFileError: what a hit stands for is damaged.
        """
        return self._searcher.fill(hits)

    @property
    def score_limit(self) -> float | None:
        """What the scores of `search` cannot exceed: 1 where they are cosines, None where there is no limit."""
        return 1.0 if self.settings.metric == "cosine" and self.settings.kind == "dense" else None

    def text_limits(self, queries: Sequence[str]) -> list[float]:
        """Return for each query what the scores of `search_text` cannot exceed here; 0 where it has no words."""
        with reading(self.database.path):
            return text_limits(self.database, queries, len(self))

    def text_statistics(self, terms: Sequence[str]) -> TextStatistics:
        """Return what BM25 needs to know of this index to score terms (`text_terms`) as in a collection that it is a shard of."""
        with reading(self.database.path):
            return text_statistics(self.database, terms)

    def text_terms(self, query: str) -> list[str]:
        """Return what `search_text` looks for: the words of a query, in order."""
        return find_terms(query, self.database.version)
