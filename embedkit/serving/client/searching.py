"""Searching the indexes of a server as a `Retriever` searches one that is here."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from embedkit.data.places import Place
from embedkit.data.records import Hit
from embedkit.errors import ServerError
from embedkit.retrieval.options import SearchOptions
from embedkit.serving.client.connection import Client, Json

AT_ONCE = 8  # requests of many queries


@dataclass(frozen=True, slots=True)
class ServedHit(Hit):
    """A hit that a server judged; `index` is its name where several were searched."""

    strength: float = 0.0
    weak: bool = False
    index: str = ""


@dataclass
class Said:
    """What a server said besides hits: the names of its models, and notes, each once."""

    models: dict[str, str] = field(default_factory=dict)
    reranker: str | None = None
    notes: dict[str, int] = field(default_factory=dict)  # how often

    def note(self, answer: Json) -> None:
        self.models |= answer["models"]
        self.reranker = answer["reranker"]
        for note in answer["notes"]:
            self.notes[note] = self.notes.get(note, 0) + 1


class ServedIndexes:
    """The index of a server that its address names, or all of them. `rerank` names a reranker of the server, True its first."""

    def __init__(self, client: Client, *, rerank: bool | str = False) -> None:
        self.client, self.rerank = client, rerank
        self.said = Said()

    def search(self, queries: Sequence[str], options: SearchOptions) -> list[list[Hit]]:
        """Return up to k hits for each query, best first, weak ones among them; several queries are asked at once.

        Raises:
            ServerError: the server cannot be reached, or refuses.
        """
        if len(queries) == 1:
            return [self._hits(self._asked(queries[0], options))]
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ask")
        try:
            return [
                self._hits(answer) for answer in pool.map(lambda query: self._asked(query, options), queries)
            ]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # who interrupts does not wait for the rest

    def count(self) -> int:
        """Count the passages of the indexes that are searched."""
        wanted = self.client.address.index
        listed = self.client.ask("GET", "/indexes")["indexes"]
        return sum(index["passages"] for index in listed if wanted in ("", index["name"]))

    def _asked(self, query: str, options: SearchOptions) -> Json:
        body = {
            "query": query,
            "index": self.client.address.index or None,
            "rerank": self.rerank,
            "all": True,
            **{name: getattr(options, name) for name in _SAME},
        }
        if options.rerank_budget_seconds is not None:
            body["rerank_budget"] = f"{options.rerank_budget_seconds:.6f}s"
        return self.client.ask("POST", "/search", body)

    def _hits(self, answer: Json) -> list[Hit]:
        try:
            self.said.note(answer)
            several = len(answer["indexes"]) > 1
            return [_hit(row, several=several) for row in answer["hits"]]
        except (KeyError, TypeError, AttributeError) as exc:
            raise ServerError(
                f"{self.client.address}: its answer is not that of a search ({exc!r}). Is it an embedkit server of this version?"
            ) from exc


_SAME = (
    *("k", "mode", "where", "candidates", "dense_weight", "text_weight", "fusion"),
    *("rerank_weight", "group", "min_score"),
)


def _hit(row: dict[str, Any], *, several: bool) -> ServedHit:  # Any: JSON
    return ServedHit(
        row["id"],
        row["score"],
        row["text"],
        title=row["title"],
        metadata=row["metadata"],
        passage=row["passage"],
        scores=row["scores"],
        source=row["source"],
        start=row["start"],
        stop=row["stop"],
        place=None if row["place"] is None else Place.from_dict(row["place"]),
        strength=row["strength"],
        weak=row["weak"],
        index=row["index"] if several else "",
    )
