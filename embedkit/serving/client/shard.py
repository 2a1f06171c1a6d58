"""A shard that a server holds, for an index in shards to search as one that is here."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from embedkit.data.records import Document, Hit
from embedkit.errors import FilterError, ServerError
from embedkit.retrieval.vectors import Vectors
from embedkit.serving.client.connection import Address, Client, Json, ServerRefusalError
from embedkit.serving.indexes.shard_json import (
    read_document,
    read_fields,
    read_hits,
    read_statistics,
    read_vectors,
    statistics_json,
    vectors_json,
)
from embedkit.types import Float32
from indexes import FieldValues, Misuse, Settings, SharedScans, TextStatistics, find_terms
from indexes.search.syntax import REGEX_OFF
from indexes.storage.codes import RowArray

_STRANGE = (KeyError, TypeError, ValueError, AttributeError)


class ServedShard:
    """A shard behind `embedkit serve`, named by its address; fulfils `indexes.sharded.shard.Shard`.

    Each question is answered by the newest commit there; how many rows it has is looked up by `follow`. Where another index has taken
    its place, of another encoder or other passages, its server refuses to answer.
    """

    def __init__(self, address: str, *, key: str | None = None) -> None:
        """Ask the server what the shard is.

        Raises:
            ServerError: it cannot be reached, or refuses.
        """
        # A busy server is no reason to wait: whoever gathers shards leaves it out, and says so.
        self._client = Client(Address.of(address), key=key, patience_seconds=0.0)
        self._fields: Sequence[str] = ()
        self._digest: str | None = None
        self._about = self._describe()
        self.settings = Settings.from_json(json.dumps(self._about["settings"]))
        self._digest = self.settings.digest  # from here on

    def _ask(self, do: str, **body: Any) -> Any:  # Any: JSON
        try:
            content = {"do": do, "index": self._client.address.index or None, "fields": list(self._fields)}
            content["settings"] = self._digest
            return self._client.ask("POST", "/shard", content | body)["result"]
        except KeyError as exc:
            raise self._strange(exc) from exc
        except ServerRefusalError as exc:
            reason = str(exc).removeprefix(f"{self._client.address}: ")
            if re.match(r"where\b", reason):  # the filter is at fault, and not this shard
                # What its server does not allow is this server's alone.
                said_by = (
                    f" (said by the server of a shard, {self._client.address})" if REGEX_OFF in reason else ""
                )
                raise FilterError(f"--{reason}{said_by}") from exc
            raise

    def _strange(self, exc: Exception) -> ServerError:
        return ServerError(
            f"{self._client.address}: its answer is not that of a shard ({exc!r}). Is it an embedkit server of this version?"
        )

    def _describe(self) -> Json:
        about = self._ask("describe")
        try:
            return {
                name: about[name] for name in ("settings", "version", "rows", "documents", "fields", "model")
            }
        except _STRANGE as exc:
            raise self._strange(exc) from exc

    def __len__(self) -> int:
        return int(self._about["rows"])

    def close(self) -> None:
        self._client.close()

    def follow(self) -> bool:
        before, self._about = self._about, self._describe()
        return before != self._about

    def rest(self) -> None:
        """Nothing is held there between two questions."""

    @property
    def model_path(self) -> str | None:
        return self._about["model"]  # type: ignore[no-any-return]  # JSON

    @property
    def state(self) -> object:
        return json.dumps(self._about, sort_keys=True)

    def limit_cache(self, num_bytes: int) -> None:
        """The server sees to its own memory."""

    def share_scans(self, scans: SharedScans) -> None:
        """The server makes its passes together by itself."""

    def field_names(self) -> list[str]:
        return list(self._about["fields"])

    def share_fields(self, names: Sequence[str] | None) -> None:
        self._fields = names or ()

    def misuses(self, where: str) -> list[Misuse]:
        return [Misuse(**each) for each in self._ask("misuses", where=where)]

    def search(
        self, queries: Vectors, *, k: int, where: str | None, group: bool, bare: bool
    ) -> list[list[Hit]]:
        return self._hits("search", vectors=self._vectors(queries), k=k, where=where, group=group, bare=bare)

    def search_ids(
        self, queries: Vectors, *, k: int, where: str | None, group: bool
    ) -> list[list[tuple[str, float]]]:
        found = self._ask("search_ids", vectors=self._vectors(queries), k=k, where=where, group=group)
        return [[(doc_id, score) for doc_id, score in some] for some in found]

    def _vectors(self, queries: Vectors) -> Json:
        assert isinstance(
            queries, np.ndarray
        )  # an index of another kind, a server refuses to give as a shard
        return vectors_json(queries)

    def text_terms(self, query: str) -> list[str]:
        return find_terms(query, int(self._about["version"]))

    def text_statistics(self, terms: Sequence[str]) -> TextStatistics:
        return read_statistics(self._ask("text_statistics", terms=list(terms)))

    def search_text(
        self,
        queries: Sequence[str],
        *,
        k: int,
        where: str | None,
        group: bool,
        bare: bool,
        statistics: TextStatistics | None,
        vectors: Float32 | None,
    ) -> list[list[Hit]]:
        totals = None if statistics is None else statistics_json(statistics)
        return self._hits(
            "search_text",
            queries=list(queries),
            k=k,
            where=where,
            group=group,
            bare=bare,
            statistics=totals,
            vectors=None if vectors is None else vectors_json(vectors),
        )

    def fill(self, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        bare = [
            [
                {"id": hit.doc_id, "score": hit.score, "passage": hit.passage, "scores": dict(hit.scores)}
                for hit in some
            ]
            for some in hits
        ]
        return self._hits("fill", hits=bare)

    def _hits(self, do: str, **body: Any) -> list[list[Hit]]:  # Any: JSON
        found = self._ask(do, **body)
        try:
            return read_hits(found)
        except _STRANGE as exc:
            raise self._strange(exc) from exc

    def vectors_at(self, places: RowArray) -> Float32:
        return read_vectors(self._ask("vectors_at", places=places.tolist()))

    def count_rows(self, where: str | None = None) -> int:
        return int(self._ask("count_rows", where=where))

    def count_documents(self) -> int:
        return int(self._about["documents"])

    def known_ids(self, doc_ids: Sequence[str]) -> set[str]:
        return set(self._ask("known_ids", ids=list(doc_ids)))

    def document(self, doc_id: str) -> Document | None:
        return read_document(self._ask("document", ids=[doc_id]))

    def passages(self, doc_id: str) -> tuple[list[Hit], Float32]:
        found = self._ask("passages", ids=[doc_id])
        return read_hits(found["hits"])[0], read_vectors(found["vectors"])

    def field_values(self) -> Sequence[FieldValues]:
        return read_fields(self._ask("field_values"))
