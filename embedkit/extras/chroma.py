"""Chroma through its own client: a server, or a folder that this process alone may write to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import chromadb
import httpx
import numpy as np
import numpy.typing as npt
from chromadb.config import Settings
from chromadb.errors import ChromaError, NotFoundError

from embedkit.errors import StoreError

Vectors = npt.NDArray[np.float32]
Columns = dict[str, Any]  # Any: what a point holds, by column
_SPACES = {"dot": "ip", "l2": "l2"}
_TIMEOUT_SECONDS = 60.0
_M = 16  # Chroma's own
_EF = 100
_PAGE_IDS = 100_000


class ChromaDatabase:
    """One collection, with its notes; as `embedkit.connectors.vector_database.VectorDatabase`.

    Chroma's distances are 1 - inner product, which loses digits of small scores: hits are scored here, by the stored vectors.
    """

    name = "Chroma"
    words = ""

    def __init__(
        self,
        collection: str,
        place: str,
        *,
        folder: Path | None,
        server: Mapping[str, Any],  # Any: host, port, ssl, tenant, database
        key: str | None,
    ) -> None:
        """Say where the collection is; nothing is opened before it is needed."""
        self.place, self.folder = place, folder
        self._name, self._beside = collection, f"{collection}_embedkit"
        self._server, self._key = server, key
        self._opened: dict[str, Any] = {}  # Any: a collection of the client's

    @cached_property
    def _client(self) -> Any:  # Any: the client's class differs by kind
        settings = Settings(anonymized_telemetry=False)
        if self.folder is not None:
            return chromadb.PersistentClient(str(self.folder), settings=settings)
        headers = {"x-chroma-token": self._key, "Authorization": f"Bearer {self._key}"} if self._key else None
        client = chromadb.HttpClient(**self._server, headers=headers, settings=settings)
        for server in _servers(client):
            server._session.timeout = _TIMEOUT_SECONDS  # else it waits for ever
        return client

    def close(self) -> None:
        if "_client" not in self.__dict__:
            return
        servers, system = _servers(self._client), self._client._system
        self._client.close()
        if self.folder is None and not system._running:  # clients of one process share them
            for server in servers:
                server._session.close()  # which the client leaves open

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except ChromaError as exc:
            refused = exc.code() in (401, 403)
            advice = "Check the API key in the URL, or in CHROMA_API_KEY" if refused else ""
            raise StoreError(
                f"{self.place}: Chroma says: {str(exc).splitlines()[0][:300] if str(exc) else exc.name()}. {advice}".rstrip(
                    " ."
                )
            ) from exc
        except (httpx.HTTPError, ValueError) as exc:
            if isinstance(exc, ValueError) and "connect" not in str(exc):
                raise
            raise StoreError(
                f"{self.place}: Chroma does not answer: {exc}. Check that the server runs and can be reached; the same command goes on"
            ) from exc
        except OSError as exc:
            raise StoreError(f"{self.place}: {exc}. Check the folder and its permissions") from exc

    def _find(self, name: str) -> Any | None:  # Any: a collection of the client's
        if self.folder is not None and not (self.folder / "chroma.sqlite3").exists():
            return None  # the client would make it
        if name not in self._opened:
            try:
                self._opened[name] = self._client.get_collection(name, embedding_function=None)
            except NotFoundError:
                return None
        return self._opened[name]

    @property
    def _points(self) -> Any:  # Any: as above
        with self._errors():
            found = self._find(self._name)
        if found is None:
            raise StoreError(f"{self.place}: the collection has gone. Push the index again")
        return found

    # What there is

    def dimension(self) -> int | None:
        self._opened.clear()  # what others did meanwhile is to be seen
        with self._errors():
            found = self._find(self._name)
        return None if found is None else int((found.metadata or {}).get("embedkit_dimension", 0))

    def create(self, dimension: int, *, space: str, half: bool, m: int, ef_construction: int) -> None:
        graph = {"space": _SPACES[space], "max_neighbors": m or _M, "ef_construction": ef_construction}
        about = {"embedkit_dimension": dimension, "embedkit_exact": not m}
        with self._errors():
            self._opened[self._name] = self._client.create_collection(
                self._name, configuration={"hnsw": graph}, metadata=about, embedding_function=None
            )

    # Notes

    def has_notes(self) -> bool:
        with self._errors():
            return self._find(self._beside) is not None

    def read_note(self, name: str) -> str | None:
        with self._errors():
            beside = self._find(self._beside)
            found = None if beside is None else beside.get(ids=[name], include=["documents"])
        return str(found["documents"][0]) if found and found["ids"] else None

    def write_note(self, name: str, text: str) -> None:
        with self._errors():
            beside = self._find(self._beside)
            if beside is None:
                beside = self._client.get_or_create_collection(self._beside, embedding_function=None)
                self._opened[self._beside] = beside
            beside.upsert(ids=[name], documents=[text], embeddings=[[1.0]])

    def remove_note(self, name: str) -> None:
        with self._errors():
            beside = self._find(self._beside)
            if beside is not None:
                beside.delete(ids=[name])

    # Points

    def get(
        self, ids: Sequence[str], columns: Sequence[str], *, vectors: bool
    ) -> tuple[list[Columns], Vectors]:
        points = self._points
        with self._errors():
            return _read(points.get(ids=list(ids), include=_included(vectors)), vectors=vectors)

    def scan(
        self, columns: Sequence[str], batch: int, *, vectors: bool
    ) -> Iterator[tuple[list[Columns], Vectors]]:
        points, offset = self._points, 0
        while True:
            # Chroma walks over all rows before an offset, each time: so ids come by few offsets, and rows by their ids.
            with self._errors():
                ids = points.get(limit=_PAGE_IDS, offset=offset, include=[])["ids"]
            if not ids:
                return
            offset += len(ids)
            for start in range(0, len(ids), batch):
                with self._errors():
                    found = points.get(ids=ids[start : start + batch], include=_included(vectors))
                yield _read(found, vectors=vectors)

    def upsert(self, ids: Sequence[str], rows: Sequence[Columns], vectors: Vectors) -> None:
        """Put points in. Chroma keeps what a new row does not name, so what an old one has besides is named to be removed."""
        points = self._points
        with self._errors():
            most = self._client.get_max_batch_size()
            for start in range(0, len(ids), most):
                part = slice(start, start + most)
                before = points.get(ids=list(ids[part]), include=["metadatas"])
                old = {
                    point_id: set(values or ())
                    for point_id, values in zip(before["ids"], before["metadatas"], strict=True)
                }
                new = [_metadata(row) for row in rows[part]]
                points.upsert(
                    ids=list(ids[part]),
                    embeddings=vectors[part],
                    documents=[row["text"] for row in rows[part]],
                    metadatas=[
                        {**dict.fromkeys(old.get(point_id, set()) - values.keys()), **values}
                        for point_id, values in zip(ids[part], new, strict=True)
                    ],
                )

    def delete(self, ids: Sequence[str]) -> None:
        points = self._points
        with self._errors():
            points.delete(ids=list(ids))

    def count(self, where: Mapping[str, Any] | None) -> int:  # Any: a filter as JSON
        points = self._points
        with self._errors():
            return int(points.count()) if where is None else len(points.get(where=where, include=[])["ids"])

    def num_bytes(self) -> int | None:
        return None  # a server does not say, and in a folder all collections lie together

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
        """Find the k nearest; as many candidates are looked at as are asked for."""
        points = self._points
        with self._errors():
            every = exact or bool(points.metadata["embedkit_exact"])
            asked = max(1, int(points.count())) if every else max(k, ef or _EF)  # counting takes long
            found = points.query(query_embeddings=query[None], n_results=asked, where=where, include=[])
            ids = found["ids"][0][: k + 10]  # some more, as these were ordered by fewer digits
            if not ids:
                return []
            rows, vectors = _read(points.get(ids=ids, include=_included(True)), vectors=True)
            is_l2 = points.configuration_json["hnsw"]["space"] == "l2"
        scores = -np.square(vectors - query).sum(axis=1) if is_l2 else vectors @ query
        hits = [
            (row["doc_id"], row["passage"], float(score)) for row, score in zip(rows, scores, strict=True)
        ]
        return sorted(hits, key=lambda hit: -hit[2])[:k]

    def by_words(
        self,
        query: Mapping[int, float] | str,
        *,
        k: int,
        where: Mapping[str, Any] | None,  # Any: as above
    ) -> list[tuple[str, int, float]]:
        raise NotImplementedError("Chroma has no search by words")  # `words` says so

    def idf(self, word: Mapping[int, float] | str) -> float:
        raise NotImplementedError("Chroma has no search by words")  # as above

    def build(self, *, m: int, ef_construction: int) -> str:
        """Note whether searches are to be exact; the graph has been made while points came."""
        points = self._points
        with self._errors():
            graph = points.configuration_json["hnsw"]
            exact = not m
            if exact != points.metadata["embedkit_exact"]:
                points.modify(metadata={**points.metadata, "embedkit_exact": exact})
        there = (graph["max_neighbors"], graph["ef_construction"])
        if exact:
            return "Chroma has a graph always: with --hnsw-m 0 searches look at all of it, which is slow"
        if there == (m, ef_construction):
            return ""
        return (
            f"Chroma's graph stays as it was made, with --hnsw-m {there[0]} --hnsw-ef-construction {there[1]}: "
            "push under another name for another"
        )


def _servers(client: Any) -> tuple[Any, ...]:  # Any: the client's own
    return client._server, client._admin_client._server


def _included(vectors: bool) -> list[str]:
    return ["metadatas", "documents", *(["embeddings"] if vectors else [])]


def _metadata(row: Columns) -> Columns:
    """Return a row as Chroma's metadata, which is flat."""
    kept = {
        name: row[name] for name in ("doc_id", "passage", "title", "source", "record", "digest", "tokens")
    }
    return {**kept, "metadata": json.dumps(row["metadata"], ensure_ascii=False), **row["numbers"]}


def _read(
    found: Mapping[str, Any], *, vectors: bool
) -> tuple[list[Columns], Vectors]:  # Any: as the client has it
    rows = []
    for point_id, values, text in zip(found["ids"], found["metadatas"], found["documents"], strict=True):
        row: Columns = {"id": point_id, **(values or {}), "text": text}
        if "digest" in row:
            row["metadata"] = json.loads(row["metadata"])
        rows.append(row)
    if not vectors or not rows:
        return rows, np.empty((len(rows), 0), np.float32)
    return rows, np.asarray(found["embeddings"], np.float32)
