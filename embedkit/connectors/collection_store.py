"""Vector databases that hold collections of points: what they have in common as a `Store`.

A point is a row: its id is a UUID made of the document's id and the passage's number, beside its texts stand the facets that filters ask for. In a
collection `NAME_embedkit` stand notes: what was pushed, and who pushes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from embedkit.connectors.facets import Condition, condition_of, facets_of
from embedkit.connectors.locks import LEASE, Lease, file_lock
from embedkit.connectors.store import (
    BATCH_ROWS,
    Hnsw,
    Key,
    StoredAs,
    StoreRow,
    TableLayout,
    Vectors,
)
from embedkit.connectors.urls import StoreUrl
from embedkit.connectors.vector_database import Columns, Native, VectorDatabase
from embedkit.connectors.words import K1, word_number, word_weights, words_of
from embedkit.errors import StoreError
from indexes.search.syntax import Node
from indexes.storage.metadata import read_metadata

_COLUMNS = ("doc_id", "passage", "title", "text", "source", "metadata", "record", "digest")
_INFO = "info"
_POINTS = uuid.UUID("8f9b1f3a-51b4-5c0f-9d0e-6a1c7d2e4b90")  # under which our ids are made
_SPACE = {
    "cosine": "dot",
    "dot": "dot",
    "l2": "l2",
}  # ours have unit length, and databases would make others of them


class CollectionStore:
    """One collection of a vector database; as `embedkit.connectors.store.Store`."""

    storages: Sequence[StoredAs] = ("float32", "float16")

    def __init__(
        self, url: StoreUrl, database: VectorDatabase, to_native: Callable[[Condition], Native]
    ) -> None:
        self.place, self._name = url.place, url.table
        self._database, self._to_native = database, to_native
        self.has_text = bool(database.words)
        self._check: Callable[[], None] = lambda: None

    def close(self) -> None:
        self._database.close()

    # What the collection is

    def read_info(self) -> str | None:
        dimension, beside = self._database.dimension(), self._database.has_notes()
        info = self._database.read_note(_INFO) if beside else None
        if beside and info is None and self._database.read_note(LEASE) is None:
            raise StoreError(self._foreign(f"{self._name}_embedkit"))
        if dimension is None:
            return None
        if info is None or dimension != json.loads(info)["settings"]["dimension"]:
            raise StoreError(self._foreign(self._name))
        return info

    def _foreign(self, name: str) -> str:
        return f"{self.place}: there is a collection {name!r} that embedkit did not make. Name another collection in the URL"

    def create(self, layout: TableLayout, info: str) -> None:
        self.write_info(info)  # first: a collection without it would be somebody else's
        half = layout.storage == "float16"
        self._database.create(
            layout.dimension, space=_SPACE[layout.metric], half=half, **json.loads(info)["hnsw"]
        )

    def write_info(self, info: str) -> None:
        self._check()
        self._database.write_note(_INFO, info)

    @contextmanager
    def writing(self) -> Iterator[None]:
        folder = self._database.folder
        if folder is None:
            with Lease(self._database, self.place).held() as self._check:
                yield
            return
        with file_lock(folder / f"{self._name}.embedkit-lock", self.place):
            yield

    # Rows

    def digests(self, keys: Sequence[Key]) -> dict[Key, str]:
        rows, _ = self._get(keys, ("doc_id", "passage", "digest"))
        return dict(map(_digest, rows))

    def upsert(self, rows: Sequence[StoreRow], vectors: Vectors, *, new: bool = False) -> None:
        self._check()
        ids = [_point_id(row.key) for row in rows]
        self._database.upsert(ids, [self._columns(row) for row in rows], vectors)

    def _columns(self, row: StoreRow) -> Columns:
        facets = facets_of(row)
        columns: Columns = {
            **row.key._asdict(),
            "title": row.title,
            "text": row.text,
            "source": row.source,
            "metadata": read_metadata(row.metadata),
            "record": row.record,
            "digest": row.digest,
            "tokens": facets.tokens,
            "numbers": facets.numbers,
        }
        if self._database.words:
            words = f"{row.title}\n{row.text}"
            columns["words"] = word_weights(words) if self._database.words == "weights" else words
        return columns

    def delete(self, keys: Sequence[Key]) -> None:
        self._check()
        self._database.delete(list(map(_point_id, keys)))

    def scan_digests(self) -> Iterator[dict[Key, str]]:
        for rows, _ in self._database.scan(("doc_id", "passage", "digest"), 8 * BATCH_ROWS, vectors=False):
            yield dict(map(_digest, rows))

    def scan(self) -> Iterator[tuple[list[StoreRow], Vectors]]:
        for rows, vectors in self._database.scan(_COLUMNS, BATCH_ROWS, vectors=True):
            foreign = next((row for row in rows if "digest" not in row), None)
            if foreign is not None:
                raise StoreError(
                    f"{self.place}: holds points that embedkit did not write, such as {foreign['id']}. "
                    "Remove them, or push under another name"
                )
            yield list(map(_row, rows)), vectors

    def fetch(self, keys: Sequence[Key]) -> dict[Key, StoreRow]:
        rows, _ = self._get(keys, _COLUMNS)
        return {row.key: row for row in map(_row, rows)}

    def vectors(self, keys: Sequence[Key]) -> dict[Key, Vectors]:
        rows, vectors = self._get(keys, ("doc_id", "passage"), vectors=True)
        return {Key(row["doc_id"], row["passage"]): vector for row, vector in zip(rows, vectors, strict=True)}

    def _get(
        self, keys: Sequence[Key], columns: Sequence[str], *, vectors: bool = False
    ) -> tuple[list[Columns], Vectors]:
        if not keys:
            return [], np.empty((0, 0), np.float32)
        return self._database.get(list(map(_point_id, keys)), columns, vectors=vectors)

    def count(self, where: Node | None = None) -> int:
        return self._database.count(self._native(where))

    def _native(self, where: Node | None) -> Native | None:
        return None if where is None else self._to_native(condition_of(where, self._database.name))

    def num_bytes(self) -> int | None:
        return self._database.num_bytes()

    # Search

    def build_ann(self, layout: TableLayout, hnsw: Hnsw) -> str:
        return self._database.build(m=hnsw.m, ef_construction=hnsw.ef_construction)

    def search(
        self, query: Vectors, *, layout: TableLayout, k: int, where: Node | None, ef: int | None
    ) -> list[tuple[Key, float]]:
        native = self._native(where)
        found = self._database.nearest(query, k=k, where=native, ef=ef, exact=False)
        if len(found) < k and where is not None:  # a graph may miss the few that pass: look at all of them
            found = self._database.nearest(query, k=k, where=native, ef=ef, exact=True)
        return [(Key(doc_id, passage), float(np.float32(score))) for doc_id, passage, score in found]

    def search_text(self, query: str, *, k: int, where: Node | None) -> list[tuple[Key, float]]:
        words = words_of(query)
        if not words:
            return []
        found = self._database.by_words(self._asked(words), k=k, where=self._native(where))
        return [(Key(doc_id, passage), float(score)) for doc_id, passage, score in found]

    def text_limit(self, query: str) -> float:
        """Return the limit of BM25, (k1 + 1) Σ idf."""
        words = dict.fromkeys(words_of(query))
        return (K1 + 1) * sum(self._database.idf(self._asked([word])) for word in words)

    def _asked(self, words: Sequence[str]) -> Mapping[int, float] | str:
        if self._database.words == "weights":
            return dict.fromkeys(map(word_number, words), 1.0)
        return " ".join(words)


def _point_id(key: Key) -> str:
    return str(uuid.uuid5(_POINTS, f"{key.passage}/{key.doc_id}"))


def _digest(row: Columns) -> tuple[Key, str]:
    """Return a row's key and digest; of a point of somebody else's its id, and no digest."""
    if "digest" not in row:
        return Key(str(row["id"]), 0), ""
    return Key(row["doc_id"], row["passage"]), row["digest"]


def _row(row: Columns) -> StoreRow:
    texts = {**row, "metadata": json.dumps(row["metadata"], ensure_ascii=False)}
    return StoreRow(Key(row["doc_id"], row["passage"]), *(texts[name] for name in _COLUMNS[2:]))
