"""Qdrant through its own client: a server, or the client's local mode, which keeps a folder and compares a query with every vector."""

from __future__ import annotations

import fcntl
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from embedkit.errors import StoreError
from embedkit.extras.qdrant_points import Columns, Vectors, filter_of, point_of, read_points, sparse

_SPACES = {"dot": models.Distance.DOT, "l2": models.Distance.EUCLID}
_TIMEOUT_SECONDS = 60
_REQUEST_BYTES = 16 << 20  # of the 32 MB that a server takes at a time
_BUILD_SECONDS = 3600
_SLOW_ROWS = 20_000  # of the local mode, by its own word
_NOTES = uuid.UUID("b0b7f6f2-6a3c-5d53-8e0e-0f1f3e0f7c11")
_ADVICE = {401: "Check the API key in the URL, or in QDRANT_API_KEY", 403: "Check the API key and its rights"}


class QdrantDatabase:
    """One collection, with its notes; as `embedkit.connectors.collection_store.VectorDatabase`."""

    name = "Qdrant"
    words = "weights"

    def __init__(
        self, collection: str, place: str, *, folder: Path | None, address: str, key: str | None, int8: bool
    ) -> None:
        """Say where the collection is; nothing is opened before it is needed."""
        self.place, self.folder = place, folder
        self._name, self._beside, self._int8 = collection, f"{collection}_embedkit", int8
        self._address, self._key = address, key
        self._is_l2 = False

    @cached_property
    def _client(self) -> QdrantClient:
        if self.folder is not None and _is_locked(self.folder / ".lock"):
            raise RuntimeError("already accessed")  # as the client says, which would leave a file open
        with warnings.catch_warnings():
            # That a key goes over plain HTTP is for the URL to say, and that the local mode is slow is said by `build`.
            warnings.simplefilter("ignore")
            if self.folder is not None:
                return QdrantClient(path=str(self.folder), force_disable_check_same_thread=True)
            return QdrantClient(
                url=self._address, api_key=self._key, timeout=_TIMEOUT_SECONDS, check_compatibility=False
            )

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    def _has(self, collection: str) -> bool:
        """Say whether there is a collection; where there is no folder, none is made to find out."""
        if self.folder is not None and not (self.folder / "meta.json").exists():
            return False
        return bool(self._client.collection_exists(collection))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UnexpectedResponse as exc:
            said = exc.content.decode(errors="replace")[:300]
            advice = _ADVICE.get(exc.status_code or 0, "")
            raise StoreError(
                f"{self.place}: Qdrant says: {exc.status_code} {exc.reason_phrase} {said}. {advice}".rstrip(
                    " ."
                )
            ) from exc
        except ResponseHandlingException as exc:
            raise StoreError(
                f"{self.place}: Qdrant does not answer: {exc}. Check that the server runs and can be reached; the same command goes on"
            ) from exc
        except RuntimeError as exc:
            if "already accessed" not in str(exc):
                raise
            raise StoreError(
                f"{self.place}: another process has the folder open; Qdrant's local mode is for one at a time. "
                "Wait for it to end, or use a server"
            ) from exc
        except OSError as exc:
            raise StoreError(f"{self.place}: {exc}. Check the folder and its permissions") from exc

    # What there is

    def dimension(self) -> int | None:
        with self._errors():
            if not self._has(self._name):
                return None
            shape = self._client.get_collection(self._name).config.params
        vectors = shape.vectors if isinstance(shape.vectors, dict) else {}
        if "embedding" not in vectors or "words" not in (shape.sparse_vectors or {}):
            return 0
        self._is_l2 = vectors["embedding"].distance == models.Distance.EUCLID
        return int(vectors["embedding"].size)

    def create(self, dimension: int, *, space: str, half: bool, m: int, ef_construction: int) -> None:
        """Make the collection; the graph is made when the points are there."""
        int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        number = models.Datatype.FLOAT16 if half else models.Datatype.FLOAT32
        with self._errors():
            self._client.create_collection(
                self._name,
                vectors_config={
                    "embedding": models.VectorParams(size=dimension, distance=_SPACES[space], datatype=number)
                },
                sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
                hnsw_config=models.HnswConfigDiff(m=0),
                quantization_config=models.ScalarQuantization(scalar=int8) if self._int8 else None,
            )
            if self.folder is None:
                text, number_ = models.PayloadSchemaType.KEYWORD, models.PayloadSchemaType.FLOAT
                for column, kind in (("tokens", text), ("numbers[].key", text), ("numbers[].value", number_)):
                    self._client.create_payload_index(self._name, column, kind)
        self._is_l2 = space == "l2"

    # Notes

    def has_notes(self) -> bool:
        with self._errors():
            return self._has(self._beside)

    def read_note(self, name: str) -> str | None:
        with self._errors():
            if not self._has(self._beside):
                return None
            found = self._client.retrieve(self._beside, [_note(name)], with_payload=True)
        return str(found[0].payload["text"]) if found and "text" in found[0].payload else None

    def write_note(self, name: str, text: str) -> None:
        with self._errors():
            if not self._has(self._beside):
                self._client.create_collection(self._beside, vectors_config={})
            point = models.PointStruct(id=_note(name), vector={}, payload={"name": name, "text": text})
            self._client.upsert(self._beside, [point], wait=True)

    def remove_note(self, name: str) -> None:
        with self._errors():
            self._client.delete(self._beside, [_note(name)], wait=True)

    # Points

    def get(
        self, ids: Sequence[str], columns: Sequence[str], *, vectors: bool
    ) -> tuple[list[Columns], Vectors]:
        with self._errors():
            found = self._client.retrieve(
                self._name,
                list(ids),
                with_payload=list(columns),
                with_vectors=["embedding"] if vectors else False,
            )
        return read_points(found, vectors=vectors)

    def scan(
        self, columns: Sequence[str], batch: int, *, vectors: bool
    ) -> Iterator[tuple[list[Columns], Vectors]]:
        offset = None
        while True:
            with self._errors():
                found, offset = self._client.scroll(
                    self._name,
                    limit=batch,
                    offset=offset,
                    with_payload=list(columns),
                    with_vectors=["embedding"] if vectors else False,
                )
            if found:
                yield read_points(found, vectors=vectors)
            if offset is None:
                return

    def upsert(self, ids: Sequence[str], rows: Sequence[Columns], vectors: Vectors) -> None:
        """Put points in; wide ones in several requests."""
        points = [point_of(*each) for each in zip(ids, rows, vectors, strict=True)]
        most = max(1, _REQUEST_BYTES // (22 * vectors.shape[1] + 8000))
        for start in range(0, len(points), most):
            with self._errors():
                self._client.upsert(self._name, points[start : start + most], wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        with self._errors():
            self._client.delete(self._name, list(ids), wait=True)

    def count(self, where: Mapping[str, Any] | None) -> int:  # Any: a filter as JSON
        with self._errors():
            return int(self._client.count(self._name, count_filter=filter_of(where), exact=True).count)

    def num_bytes(self) -> int | None:
        if self.folder is None:
            return None  # a server does not say
        files = (self.folder / "collection" / self._name).rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())

    # Search

    def nearest(
        self,
        query: Vectors,
        *,
        k: int,
        where: Mapping[str, Any] | None,  # Any: as above
        ef: int | None,
        exact: bool,
    ) -> list[tuple[str, int, float]]:
        params = models.SearchParams(
            hnsw_ef=None if ef is None else max(ef, k),
            exact=exact,
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0)
            if self._int8
            else None,
        )
        found = self._query(
            query.tolist(), "embedding", k, where, params=params if self.folder is None else None
        )
        sign = -1.0 if self._is_l2 else 1.0
        return [
            (doc_id, passage, sign * score * (score if self._is_l2 else 1.0))
            for doc_id, passage, score in found
        ]

    def by_words(
        self,
        query: Mapping[int, float],
        *,
        k: int,
        where: Mapping[str, Any] | None,  # Any: as above
    ) -> list[tuple[str, int, float]]:
        return [hit for hit in self._query(sparse(query), "words", k, where) if hit[2] > 0]

    def _query(
        self,
        query: Any,  # Any: a vector of either kind
        using: str,
        k: int,
        where: Mapping[str, Any] | None,  # Any: as above
        params: models.SearchParams | None = None,
    ) -> list[tuple[str, int, float]]:
        with self._errors():
            found = self._client.query_points(
                self._name,
                query=query,
                using=using,
                limit=k,
                query_filter=filter_of(where),
                search_params=params,
                with_payload=["doc_id", "passage"],
            ).points
        return [(each.payload["doc_id"], each.payload["passage"], each.score) for each in found]

    def idf(self, word: Mapping[int, float]) -> float:
        """Return what Qdrant weighs a word with: the score of the best point that has it, by the weight that it has there."""
        with self._errors():
            found = self._client.query_points(
                self._name, query=sparse(word), using="words", limit=1, with_vectors=["words"]
            ).points
        if not found:
            return 0.0
        weights = dict(zip(found[0].vector["words"].indices, found[0].vector["words"].values, strict=True))
        return float(found[0].score) / float(weights[next(iter(word))])

    def build(self, *, m: int, ef_construction: int) -> str:
        """Have the server make its graph, and wait until it has."""
        with self._errors():
            if self.folder is not None:
                rows = self._client.count(self._name, exact=True).count
                slow = f"Qdrant's local mode compares a query with every vector, {rows:,} here: use a server for so many"
                return slow if rows > _SLOW_ROWS else ""
            there = self._client.get_collection(self._name).config.hnsw_config
            if (there.m, there.ef_construct) != (m, ef_construction) and (m or there.m):
                wanted = models.HnswConfigDiff(m=m, ef_construct=ef_construction if m else None)
                self._client.update_collection(self._name, hnsw_config=wanted)
            ended = time.monotonic() + _BUILD_SECONDS
            while self._client.get_collection(self._name).status != models.CollectionStatus.GREEN:
                if time.monotonic() > ended:
                    return "Qdrant is still building its graph: until it is done, searches are slower"
                time.sleep(0.5)
        return ""


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _note(name: str) -> str:
    return str(uuid.uuid5(_NOTES, name))
