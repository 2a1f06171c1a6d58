"""Milvus through its own client: a server, or a file of Milvus Lite."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import DataType, Function, FunctionType, MilvusClient
from pymilvus.exceptions import MilvusException

from embedkit.errors import StoreError

Vectors = npt.NDArray[np.float32]
Columns = dict[str, Any]  # Any: what a point holds, by column
_METRICS = {"dot": "IP", "l2": "L2"}
_TEXTS = ("doc_id", "title", "text", "source", "metadata", "record", "digest")
_MOST_BYTES = 65_535  # of a text in Milvus
_MOST_TOKENS = 4096  # of an array
_TIMEOUT_SECONDS = 60
_REQUEST_BYTES = 32 << 20  # of the 64 MB that a server takes at a time
_EF = 100
_MOST_HITS = 16_384
_GRAPH = "graph"  # the note of what the graph was made with
_ADVICE = {
    "auth": "Check user and password in the URL, or MILVUS_TOKEN",
    "connecting": "Check that the server runs and can be reached; the same command goes on",
    "unavailable": "Check that the server runs and can be reached; the same command goes on",
    "Open local milvus failed": "Another process has the file open: wait for it to end, or use a server",
}
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs each error that it raises
logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)


class MilvusDatabase:
    """One collection, with its notes; as `embedkit.connectors.vector_database.VectorDatabase`."""

    name = "Milvus"
    words = "text"

    def __init__(
        self, collection: str, place: str, *, file: Path | None, address: str, token: str, database: str
    ) -> None:
        """Say where the collection is; nothing is opened before it is needed."""
        self.place, self.folder = place, None if file is None else file.parent
        self._file, self._address, self._token, self._database = file, address, token, database
        self._name, self._beside = collection, f"{collection}_embedkit"
        self._metric = ""
        self._loaded: set[str] = set()

    @cached_property
    def _client(self) -> MilvusClient:
        if self._file is None:
            return MilvusClient(
                self._address, token=self._token, db_name=self._database, timeout=_TIMEOUT_SECONDS
            )
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return MilvusClient(str(self._file))

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MilvusException as exc:
            said = (exc.message or str(exc)).splitlines()[0][:300]
            advice = next((text for part, text in _ADVICE.items() if part in said), "")
            raise StoreError(f"{self.place}: Milvus says: {said}. {advice}".rstrip(" .")) from exc
        except OSError as exc:
            raise StoreError(f"{self.place}: {exc}. Check the folder and its permissions") from exc

    def _has(self, collection: str) -> bool:
        """Say whether there is a collection; where there is no file, none is made to find out."""
        if self._file is not None and not self._file.exists():
            return False
        if not self._client.has_collection(collection):
            return False
        if self._file is not None and collection not in self._loaded:
            self._client.load_collection(collection)  # Milvus Lite opens a file with nothing loaded
            self._loaded.add(collection)
        return True

    # What there is

    def dimension(self) -> int | None:
        with self._errors():
            if not self._has(self._name):
                return None
            fields = {each["name"]: each for each in self._client.describe_collection(self._name)["fields"]}
            if not {"id", *_TEXTS, "passage", "tokens", "numbers", "embedding"} <= fields.keys():
                return 0
            self._learn()
        return int(fields["embedding"]["params"]["dim"])

    def _learn(self) -> None:
        if "embedding" in self._client.list_indexes(self._name):
            self._metric = self._client.describe_index(self._name, "embedding")["metric_type"]

    def create(self, dimension: int, *, space: str, half: bool, m: int, ef_construction: int) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=36)
        for name in _TEXTS:
            schema.add_field(name, DataType.VARCHAR, max_length=_MOST_BYTES)
        schema.add_field("passage", DataType.INT64)
        schema.add_field("numbers", DataType.JSON)
        schema.add_field(
            "tokens",
            DataType.ARRAY,
            element_type=DataType.VARCHAR,
            max_capacity=_MOST_TOKENS,
            max_length=32,
        )
        schema.add_field(
            "words", DataType.VARCHAR, max_length=_MOST_BYTES, enable_analyzer=True, enable_match=True
        )
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dimension)
        schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function(
                name="bm25",
                function_type=FunctionType.BM25,
                input_field_names=["words"],
                output_field_names=["sparse"],
            )
        )
        indexes = self._client.prepare_index_params()
        _add_graph(indexes, _METRICS[space], m, ef_construction)
        indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        with self._errors():
            self._client.create_collection(
                self._name, schema=schema, index_params=indexes, consistency_level="Strong"
            )
        self._metric = _METRICS[space]
        self.write_note(_GRAPH, _about(m, ef_construction))

    # Notes

    def has_notes(self) -> bool:
        with self._errors():
            return self._has(self._beside)

    def read_note(self, name: str) -> str | None:
        with self._errors():
            if not self._has(self._beside):
                return None
            fields = {each["name"] for each in self._client.describe_collection(self._beside)["fields"]}
            if "note" not in fields:
                return None
            found = self._client.get(self._beside, [name], output_fields=["note"])
        return str(found[0]["note"]) if found else None

    def write_note(self, name: str, text: str) -> None:
        with self._errors():
            if not self._has(self._beside):
                schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
                schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=36)
                schema.add_field("note", DataType.VARCHAR, max_length=_MOST_BYTES)
                schema.add_field("nothing", DataType.FLOAT_VECTOR, dim=2)  # a collection has a vector
                indexes = self._client.prepare_index_params()
                indexes.add_index("nothing", index_type="FLAT", metric_type="L2")
                self._client.create_collection(
                    self._beside, schema=schema, index_params=indexes, consistency_level="Strong"
                )
            self._client.upsert(self._beside, [{"id": name, "note": text, "nothing": [0.0, 0.0]}])

    def remove_note(self, name: str) -> None:
        with self._errors():
            self._client.delete(self._beside, ids=[name])

    # Points

    def get(
        self, ids: Sequence[str], columns: Sequence[str], *, vectors: bool
    ) -> tuple[list[Columns], Vectors]:
        asked = [*columns, *(["embedding"] if vectors else [])]
        with self._errors():
            return _read(self._client.get(self._name, list(ids), output_fields=asked), vectors=vectors)

    def scan(
        self, columns: Sequence[str], batch: int, *, vectors: bool
    ) -> Iterator[tuple[list[Columns], Vectors]]:
        # Milvus Lite looks at all rows for each page: so ids come by few pages, and rows by their ids.
        with self._errors():
            iterator = self._client.query_iterator(self._name, batch_size=_MOST_HITS, output_fields=["id"])
            try:
                while page := iterator.next():
                    ids = [each["id"] for each in page]
                    for start in range(0, len(ids), batch):
                        yield self.get(ids[start : start + batch], columns, vectors=vectors)
            finally:
                iterator.close()

    def upsert(self, ids: Sequence[str], rows: Sequence[Columns], vectors: Vectors) -> None:
        """Put points in; wide ones in several requests.

        Raises:
            StoreError: a text or a list is longer than Milvus holds.
        """
        points = [self._point(*each) for each in zip(ids, rows, vectors, strict=True)]
        most = max(1, _REQUEST_BYTES // (4 * vectors.shape[1] + 16_000))
        for start in range(0, len(points), most):
            with self._errors():
                self._client.upsert(self._name, points[start : start + most])

    def _point(self, point_id: str, row: Columns, vector: Vectors) -> Columns:
        texts = {**row, "metadata": json.dumps(row["metadata"], ensure_ascii=False)}
        for name in (*_TEXTS, "words"):
            if (size := len(texts[name].encode())) > _MOST_BYTES:
                raise StoreError(
                    f"{self.place}: the {name} of passage {row['passage']} of {row['doc_id']!r} has {size:,} bytes; "
                    f"Milvus holds {_MOST_BYTES:,}. Build the index with shorter passages"
                )
        if len(row["tokens"]) > _MOST_TOKENS:
            raise StoreError(
                f"{self.place}: the metadata of {row['doc_id']!r} has {len(row['tokens']):,} values and items; "
                f"Milvus holds {_MOST_TOKENS:,}. Leave long lists out"
            )
        return {**texts, "id": point_id, "embedding": vector}

    def delete(self, ids: Sequence[str]) -> None:
        with self._errors():
            self._client.delete(self._name, ids=list(ids))

    def count(self, where: str | None) -> int:
        with self._errors():
            found = self._client.query(self._name, filter=where or "", output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def num_bytes(self) -> int | None:
        if self._file is None or not self._file.is_dir():
            return None  # a server does not say
        files = (self._file / "collections" / self._name).rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())

    # Search

    def nearest(
        self, query: Vectors, *, k: int, where: str | None, ef: int | None, exact: bool
    ) -> list[tuple[str, int, float]]:
        """Find the k nearest; with `exact`, as many candidates are looked at as Milvus allows."""
        params = {"ef": _MOST_HITS if exact else max(k, ef or _EF)}
        found = self._search(query, "embedding", self._metric, k, where, params)
        sign = -1.0 if self._metric == "L2" else 1.0
        return [(doc_id, passage, sign * distance) for doc_id, passage, distance in found]

    def by_words(self, query: str, *, k: int, where: str | None) -> list[tuple[str, int, float]]:
        # A server gives BM25, Milvus Lite 3.2 minus BM25.
        found = self._search(query, "sparse", "BM25", k, where, {})
        return [(doc_id, passage, abs(score)) for doc_id, passage, score in found if score]

    def _search(
        self, query: Any, field: str, metric: str, k: int, where: str | None, params: Mapping[str, Any]
    ) -> list[tuple[str, int, float]]:  # Any: a vector or a text
        with self._errors():
            found = self._client.search(
                self._name,
                data=[query],
                anns_field=field,
                limit=min(k, _MOST_HITS),
                filter=where or "",
                output_fields=["doc_id", "passage"],
                search_params={"metric_type": metric, "params": dict(params)},
            )[0]
        return [(hit["entity"]["doc_id"], hit["entity"]["passage"], hit["distance"]) for hit in found]

    def idf(self, word: str) -> float:
        """Return BM25's idf of a word, by how many points have it."""
        there = self.count(f"text_match(words, {json.dumps(word)})")
        return math.log(1 + (self.count(None) - there + 0.5) / (there + 0.5)) if there else 0.0

    def build(self, *, m: int, ef_construction: int) -> str:
        """Make the graph anew where another was asked for than there is."""
        wanted = _about(m, ef_construction)
        with self._errors():
            if self.read_note(_GRAPH) != wanted:
                indexes = self._client.prepare_index_params()
                _add_graph(indexes, self._metric, m, ef_construction)
                self._client.release_collection(self._name)
                self._client.drop_index(self._name, "embedding")
                self._client.create_index(self._name, indexes)
                self._client.load_collection(self._name)
                self.write_note(_GRAPH, wanted)
            if self._file is not None:  # Milvus Lite makes the graph of what is on disk, and when it loads it
                self._client.flush(self._name)
                self._client.release_collection(self._name)
                self._client.load_collection(self._name)
        return ""


def _about(m: int, ef_construction: int) -> str:
    return f"{m} {ef_construction}" if m else "0"


def _add_graph(indexes: Any, metric: str, m: int, ef_construction: int) -> None:  # Any: the client's
    if m:
        shape = {"M": m, "efConstruction": ef_construction}
        indexes.add_index("embedding", index_type="HNSW", metric_type=metric, params=shape)
    else:
        indexes.add_index("embedding", index_type="FLAT", metric_type=metric)


def _read(found: Sequence[Any], *, vectors: bool) -> tuple[list[Columns], Vectors]:  # Any: the client's
    rows = [{name: value for name, value in each.items() if name != "embedding"} for each in found]
    for row in rows:
        if "metadata" in row:
            row["metadata"] = json.loads(row["metadata"])
    if not vectors or not rows:
        return rows, np.empty((len(rows), 0), np.float32)
    return rows, np.array([each["embedding"] for each in found], np.float32)
