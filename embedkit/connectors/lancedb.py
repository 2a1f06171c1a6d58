"""LanceDB: a table in a folder or a bucket, and one beside it for what embedkit knows of it.

A batch is one version of the table, which is there whole or not at all. A push holds a lock on a file in the folder, which the system drops
when its holder dies; in a bucket it keeps up a lease, in a table beside the others. Words are found by LanceDB's own BM25.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.connectors.buckets import OPTIONS, check_endpoint, explain
from embedkit.connectors.lancedb_filters import quoted, to_sql
from embedkit.connectors.lancedb_places import InBucket, InFolder, LancePlace
from embedkit.connectors.store import (
    BATCH_ROWS,
    Hnsw,
    Key,
    StoredAs,
    StoreRow,
    TableLayout,
    Vectors,
    not_ours,
)
from embedkit.connectors.urls import StoreUrl
from embedkit.connectors.words import K1, words_of
from embedkit.errors import StoreError
from embedkit.extras import load_extra
from indexes.search.syntax import Node

if TYPE_CHECKING:
    from embedkit.extras.lancedb import LanceFolder, LanceTable

_COLUMNS = ("doc_id", "passage", "title", "body", "source", "metadata", "record", "digest")
_LEAST_FOR_GRAPH = 1000  # rows: fewer are searched exactly in less time
_EF = 100


class LanceDb:
    """One table in a folder; as `embedkit.connectors.store.Store`."""

    storages: Sequence[StoredAs] = ("float32", "float16")
    has_text = True

    def __init__(self, url: StoreUrl) -> None:
        """Open the folder; nothing is made in it.

        Raises:
            StoreError: it cannot be read.
            MissingExtraError: LanceDB is not installed.
        """
        client: Any = load_extra("lancedb", purpose="LanceDB")  # Any: a module
        self.place, self._name, self._beside = url.place, url.table, f"{url.table}_embedkit"
        self._is_folder = url.parts.scheme != "s3"
        self._database: LanceFolder
        self._beside_it: LancePlace
        if self._is_folder:
            self._database = client.LanceFolder(url.folder, url.place)
            self._beside_it = InFolder(Path(url.folder), url.table, url.place)
        else:
            check_endpoint(url.place)
            self._database = client.LanceFolder(url.folder, url.place, OPTIONS, explain)
            self._beside_it = InBucket(self._database, url.table, url.place)
        self._opened: LanceTable | None = None
        self._check: Callable[[], None] = lambda: None

    def close(self) -> None:
        self._opened = None

    @property
    def _table(self) -> LanceTable:
        if self._opened is None:
            self._opened = self._database.open(self._name)
        return self._opened

    # What the table is

    def read_info(self) -> str | None:
        beside, table = self._database.find(self._beside), self._database.find(self._name)
        if beside is not None and beside.columns != ["info"]:
            raise StoreError(not_ours(self.place, self._beside, beside.columns))
        if table is None:
            return None
        columns = table.columns
        if beside is None or not {*_COLUMNS, "embedding"} <= set(columns):
            raise StoreError(not_ours(self.place, self._name, columns))
        info = self._database.read_text(self._beside)
        if info is None:
            raise StoreError(
                f"{self.place}: the table {self._beside} is empty, which says what was pushed. Push under another name"
            )
        return info

    def create(self, layout: TableLayout, info: str) -> None:
        self.write_info(info)  # first: a table without it would be somebody else's
        self._opened = self._database.create(self._name, layout.dimension, half=layout.storage == "float16")

    def write_info(self, info: str) -> None:
        self._check()
        self._database.write_text(self._beside, info)

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._beside_it.writing() as self._check:
            self._opened = None  # what an earlier push did meanwhile is to be seen
            yield

    # Rows

    def digests(self, keys: Sequence[Key]) -> dict[Key, str]:
        wanted = set(keys)
        found: dict[Key, str] = {}
        for part in self._of(keys, ("doc_id", "passage", "digest")):
            found.update((key, digest) for key, digest in _digests(part) if key in wanted)
        return found

    def upsert(self, rows: Sequence[StoreRow], vectors: Vectors, *, new: bool = False) -> None:
        """Put rows in; in a bucket, where a commit may be asked for twice, what is there is looked for all the same."""
        self._check()
        columns: dict[str, list[object]] = {
            "doc_id": [row.key.doc_id for row in rows],
            "passage": [row.key.passage for row in rows],
            "title": [row.title for row in rows],
            "body": [row.text for row in rows],
            "words": [f"{row.title}\n{row.text}" for row in rows],
        }
        columns |= {
            name: [getattr(row, name) for row in rows] for name in ("source", "metadata", "record", "digest")
        }
        if new and self._is_folder:
            self._table.append(columns, vectors)
        else:
            self._table.upsert(columns, vectors)

    def delete(self, keys: Sequence[Key]) -> None:
        self._check()
        by_passage: dict[int, list[str]] = {}
        for key in keys:
            by_passage.setdefault(key.passage, []).append(key.doc_id)
        for passage, doc_ids in by_passage.items():
            self._table.delete(f"passage = {passage} AND {_among(doc_ids)}")

    def scan_digests(self) -> Iterator[dict[Key, str]]:
        for part in self._table.select(("doc_id", "passage", "digest"), 8 * BATCH_ROWS):
            yield dict(_digests(part))

    def scan(self) -> Iterator[tuple[list[StoreRow], Vectors]]:
        for part in self._table.select((*_COLUMNS, "embedding"), BATCH_ROWS):
            yield _rows(part), np.asarray(part["embedding"])

    def fetch(self, keys: Sequence[Key]) -> dict[Key, StoreRow]:
        wanted = set(keys)
        rows = [row for part in self._of(keys, _COLUMNS) for row in _rows(part)]
        return {row.key: row for row in rows if row.key in wanted}

    def vectors(self, keys: Sequence[Key]) -> dict[Key, Vectors]:
        wanted = set(keys)
        found: dict[Key, Vectors] = {}
        for part in self._of(keys, ("doc_id", "passage", "embedding")):
            named = map(Key, part["doc_id"], part["passage"])
            found.update(
                (key, vector) for key, vector in zip(named, part["embedding"], strict=True) if key in wanted
            )
        return found

    def _of(
        self, keys: Sequence[Key], columns: Sequence[str]
    ) -> Iterator[dict[str, list[Any]]]:  # Any: columns' values
        """Yield columns of the documents that some keys name, their other passages too."""
        if keys:
            ids = list(dict.fromkeys(key.doc_id for key in keys))
            yield from self._table.select(columns, 8 * BATCH_ROWS, _among(ids))

    def count(self, where: Node | None = None) -> int:
        return self._table.count(None if where is None else to_sql(where))

    def num_bytes(self) -> int | None:
        return self._beside_it.num_bytes()

    # Search

    def build_ann(self, layout: TableLayout, hnsw: Hnsw) -> str:
        indexed, count = self._table.indexes(), self._table.count()
        if not count:
            return ""
        if "doc_id" not in indexed:
            self._table.index_ids()
        if "words" not in indexed:
            self._table.index_words()
        wanted = f"{hnsw.m} {hnsw.ef_construction}" if hnsw.m and count >= _LEAST_FOR_GRAPH else ""
        there = self._beside_it.read_graph() if "embedding" in indexed else ""
        if there != wanted or bool(wanted) != ("embedding" in indexed):
            self._table.drop_index("embedding")
            if wanted:
                self._table.index_vectors(
                    metric=layout.metric, m=hnsw.m, ef_construction=hnsw.ef_construction
                )
            self._beside_it.write_graph(wanted)
        self._table.optimize()
        return ""

    def search(
        self, query: Vectors, *, layout: TableLayout, k: int, where: Node | None, ef: int | None
    ) -> list[tuple[Key, float]]:
        sql = None if where is None else to_sql(where)
        found = self._table.nearest(query, metric=layout.metric, k=k, where=sql, ef=ef or _EF)
        if where is not None and len(found) < k:  # the graph may miss the few that pass: look at all of them
            found = self._table.nearest(query, metric=layout.metric, k=k, where=sql, ef=None)
        # LanceDB's distance is 1 - cosine, 1 - inner product, or the squared distance.
        offset = 0.0 if layout.metric == "l2" else 1.0
        return [
            (Key(doc_id, passage), float(np.float32(offset - distance)))
            for doc_id, passage, distance in found
        ]

    def search_text(self, query: str, *, k: int, where: Node | None) -> list[tuple[Key, float]]:
        words = " ".join(words_of(query))
        if not words or "words" not in self._table.indexes():
            return []
        found = self._table.by_words(words, k=k, where=None if where is None else to_sql(where))
        return [(Key(doc_id, passage), float(score)) for doc_id, passage, score in found]

    def text_limit(self, query: str) -> float:
        """Return the limit of BM25, (k1 + 1) Σ idf, over the words that the table has; no word counts as more frequent than `_MOST_COUNTED`."""
        if "words" not in self._table.indexes():
            return 0.0
        total, limit = self._table.count(), 0.0
        for word in dict.fromkeys(words_of(query)):
            count = len(self._table.by_words(word, k=_MOST_COUNTED, where=None))
            limit += (K1 + 1) * math.log(1 + (total - count + 0.5) / (count + 0.5)) if count else 0.0
        return limit


_MOST_COUNTED = 10_000


def _among(doc_ids: Sequence[str]) -> str:
    return f"doc_id IN ({', '.join(map(quoted, doc_ids))})"


def _digests(part: dict[str, list[Any]]) -> Iterator[tuple[Key, str]]:  # Any: columns' values
    return zip(map(Key, part["doc_id"], part["passage"]), part["digest"], strict=True)


def _rows(part: dict[str, list[Any]]) -> list[StoreRow]:  # Any: as above
    return [
        StoreRow(Key(doc_id, passage), *rest)
        for doc_id, passage, *rest in zip(*(part[name] for name in _COLUMNS), strict=True)
    ]
