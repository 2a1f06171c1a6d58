"""A server of the routes that the page calls, with canned documents, delays and failures.

What a query has in it decides how it is answered: "slow" takes half a second, "busy" is refused once, "broken" always.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from embedkit.serving.http.messages import HttpRequest, HttpResponse, RefusedError, Route
from embedkit.serving.page import routes
from indexes.search.filters import compile_filter
from tests.serving.page.documents import DOCUMENTS, Document

Json = dict[str, Any]  # Any: JSON
SLOW_SECONDS = 0.5
WORD = re.compile(r"\w+")
STOP = {"how", "was", "the", "of", "first", "a", "is"}


@dataclass(frozen=True, kw_only=True)
class Search:
    query: str
    index: list[str] | None = None
    k: int = 10
    mode: str = "hybrid"
    where: str | None = None
    rerank: bool | str = False
    all: bool = False


@dataclass(frozen=True, kw_only=True)
class Explain:
    query: str
    index: str
    id: str
    passage: int = 0


@dataclass
class Fake:
    """What the server does, and what it was asked."""

    documents: Sequence[Document] = DOCUMENTS
    rerankers: Sequence[str] = ("embedkit-rerank-small",)
    has_index: bool = True
    kinds: Mapping[str, str] = field(default_factory=dict)  # of indexes, where they are not dense
    modes: Sequence[str] = ("dense", "text", "hybrid")
    broken: bool = False
    delay: float = 0.0
    asked: list[Json] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)  # path and authorization
    _refused: set[str] = field(default_factory=set)

    def routes(self) -> list[Route]:
        def route(method: str, path: str, handle: Any, takes: type | None = None) -> Route:
            return Route(
                method=method,
                path=path,
                handle=self._noted(handle),
                error_body=error,
                summary="…",
                tag="search",
                takes=takes,
            )

        return [
            *routes(),
            route("GET", "/indexes", self.indexes),
            route("POST", "/search", self.search, Search),
            route("GET", "/documents/{id:path}", self.document),
            route("GET", "/similar/{id:path}", self.similar),
            route("POST", "/explain", self.explain, Explain),
        ]

    def _noted(self, handle: Any) -> Any:
        async def noted(request: HttpRequest) -> HttpResponse:
            self.seen.append((request.path, request.headers.get("authorization", "")))
            if self.broken:
                raise KeyError("a fault of the server")
            await asyncio.sleep(self.delay)
            answer: HttpResponse = await handle(request)
            return answer

        return noted

    async def indexes(self, request: HttpRequest) -> HttpResponse:
        names = sorted({each.index for each in self.documents}, reverse=True) if self.has_index else []
        return HttpResponse(
            content={
                "indexes": [self._index(name) for name in names],
                "rerankers": list(self.rerankers),
                "models": ["embedkit-small"],
                "writable": False,
            }
        )

    def _index(self, name: str) -> Json:
        own = [each for each in self.documents if each.index == name]
        return {
            "name": name,
            "documents": len(own),
            "passages": sum(len(passages(each)) for each in own),
            "model": "embedkit-small",
            "kind": self.kinds.get(name, "dense"),
            "dimension": 384,
            "metric": "cosine",
            "modes": list(self.modes),
            "fields": fields(own),
        }

    async def search(self, request: HttpRequest) -> HttpResponse:
        wanted: Search = request.content
        self.asked.append(json.loads(request.body))
        if "slow" in wanted.query:
            try:
                await asyncio.sleep(SLOW_SECONDS)
            except asyncio.CancelledError:
                self.cancelled.append(wanted.query)
                raise
        if "busy" in wanted.query and wanted.query not in self._refused:
            self._refused.add(wanted.query)
            raise RefusedError(429, "the queue is full: 1,048,576 tokens wait", headers={"retry-after": "1"})
        if "broken" in wanted.query:
            raise KeyError("a fault of the server")
        hits = self._hits(wanted)
        shown = hits if wanted.all else [hit for hit in hits if not hit["weak"]]
        weak = sum(hit["weak"] for hit in hits)
        for rank, hit in enumerate(shown[: wanted.k], 1):
            hit["rank"] = rank
        return HttpResponse(
            content={
                "query": wanted.query,
                "mode": wanted.mode,
                "indexes": wanted.index or ["papers", "notes"],
                "hits": shown[: wanted.k],
                "left_out": 0 if wanted.all else weak,
                "models": {"papers": "embedkit-small"},
                "reranker": self.rerankers[0] if wanted.rerank else None,
                "notes": ["The query was cut to 512 tokens."] if "cut" in wanted.query else [],
                "took_ms": {
                    "embed": 3.1,
                    "search": 1.2,
                    "rerank": 41.0 if wanted.rerank else 0.0,
                    "total": 45.6 if wanted.rerank else 4.5,
                },
            }
        )

    def _hits(self, wanted: Search) -> list[Json]:
        words = {word.lower() for word in WORD.findall(wanted.query)} - STOP
        allowed = self._allowed(wanted.where)
        hits = []
        for document in self.documents:
            if (wanted.index and document.index not in wanted.index) or (
                document.index,
                document.id,
            ) not in allowed:
                continue
            shares = [
                share(words, document.text[start:stop], document.title) for start, stop in passages(document)
            ]
            best = max(range(len(shares)), key=lambda number: shares[number])
            if shares[best]:
                hits.append(hit_of(document, best, words, shares[best], wanted))
        return sorted(hits, key=lambda hit: -hit["score"])

    def _allowed(self, where: str | None) -> set[tuple[str, str]]:
        """Filter as an index does, with its own language."""
        if not where:
            return {(each.index, each.id) for each in self.documents}
        names = {name for each in self.documents for name in each.metadata}
        compiled = compile_filter(where, sorted(names))
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.create_function("strict_json", 1, lambda text: text)
            connection.execute("CREATE TABLE documents (place, doc_id, title, text, source, metadata)")
            rows = [
                (place, each.id, each.title, each.text, each.source, json.dumps(each.metadata))
                for place, each in enumerate(self.documents)
            ]
            connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", rows)
            found = connection.execute(
                f"SELECT place FROM documents WHERE {compiled.sql}", tuple(compiled.values)
            )
            return {(self.documents[place].index, self.documents[place].id) for (place,) in found}

    def _find(self, request: HttpRequest) -> Document:
        for each in self.documents:
            if each.id == request.params["id"] and each.index == request.query["index"]:
                return each
        raise RefusedError(
            404, f"there is no document {request.params['id']!r} in the index {request.query['index']!r}"
        )

    async def document(self, request: HttpRequest) -> HttpResponse:
        document = self._find(request)
        return HttpResponse(
            content={
                "index": document.index,
                "id": document.id,
                "title": document.title,
                "text": document.text,
                "metadata": document.metadata,
                "source": document.source,
                "passages": [
                    {
                        "passage": number,
                        "start": start,
                        "stop": stop,
                        "where": where(document, start, stop),
                        "place": {},
                    }
                    for number, (start, stop) in enumerate(passages(document))
                ],
            }
        )

    async def similar(self, request: HttpRequest) -> HttpResponse:
        document = self._find(request)
        words = {word.lower() for word in WORD.findall(document.text)} - STOP
        hits = [hit for hit in self._hits(Search(query=" ".join(words))) if hit["id"] != document.id]
        for hit in hits:
            hit.update(weak=False, strength=0.6, scores={"dense": hit["score"]})
            hit["snippet"]["spans"] = []
        return HttpResponse(content={"hits": hits[: int(request.query["k"])]})

    async def explain(self, request: HttpRequest) -> HttpResponse:
        wanted: Explain = request.content
        (document,) = [each for each in self.documents if each.id == wanted.id and each.index == wanted.index]
        start, stop = passages(document)[wanted.passage]
        query, text = (
            weighed(wanted.query, document.text[start:stop]),
            weighed(document.text[start:stop], wanted.query),
        )
        matches = [
            {"query_word": i, "document_word": j, "cosine": 0.95 - 0.04 * i - 0.01 * (j % 7)}
            for i, one in enumerate(query["words"])
            for j, other in enumerate(text["words"])
            if part(query, one).lower() == part(text, other).lower() not in STOP
        ]
        if self.kinds.get(wanted.index) == "sparse":
            return HttpResponse(content=by_terms(wanted.query, document.text[start:stop]))
        return HttpResponse(content={"score": 0.7312, "query": query, "document": text, "matches": matches})


def by_terms(query: str, text: str) -> Json:
    """Weigh each word 1, and one of the model's own 0.5."""
    asked, own = (list(dict.fromkeys(WORD.findall(each.lower()))) for each in (query, text))
    shared = [word for word in asked if word in own]

    def terms(words: list[str]) -> list[Json]:
        found = [{"term": word, "weight": 1.0, "in_text": True} for word in words]
        return [*found, {"term": "physics", "weight": 0.5, "in_text": False}]

    added = [{"term": word, "query": 1.0, "document": 1.0, "product": 1.0} for word in shared]
    added.append({"term": "physics", "query": 0.5, "document": 0.5, "product": 0.25})
    return {
        "kind": "sparse",
        "score": len(shared) + 0.25,
        "shared": added,
        "query": {"text": query, "terms": terms(asked)},
        "document": {"text": text, "terms": terms(own), "passage_start": 0},
        "truncated": False,
    }


def error(status: int, message: str) -> Mapping[str, Any]:
    return {"error": {"message": message, "status": status}}


def passages(document: Document) -> list[tuple[int, int]]:
    """Cut at empty lines, as an index does, and behind a ¶, as it does between two sentences of a line."""
    borders = [
        0,
        *(match.end() for match in re.finditer(r"\n\n|(?<=¶)(?= )", document.text)),
        len(document.text),
    ]
    return list(itertools.pairwise(borders))


def where(document: Document, start: int, stop: int) -> str:
    first = document.text.count("\n", 0, start) + 1
    last = first + document.text[start:stop].strip().count("\n")
    return f"{document.id}:{first}" + (f"-{last}" if last > first else "")


def share(words: set[str], text: str, title: str) -> float:
    own = {word.lower() for word in WORD.findall(f"{title} {text}")}
    return len(words & own) / max(1, len(words))


def hit_of(document: Document, number: int, words: set[str], found: float, wanted: Search) -> Json:
    start, stop = passages(document)[number]
    text = document.text[start:stop]
    cut = text.strip()[:300]
    cut = cut if len(cut) < 300 else cut[: cut.rfind(". ") + 1] or cut
    spans = [list(match.span()) for match in WORD.finditer(cut) if match.group().lower() in words]
    shade = 0.011 * (len(document.id) % 7)
    scores = {"dense": 0.35 + 0.5 * found - shade, "text": 12.0 * found - 9 * shade}
    if wanted.mode != "hybrid":
        scores = {wanted.mode: scores[wanted.mode]}
    if wanted.rerank:
        scores["rerank"] = found**2 - shade
    weak = found <= 0.25
    return {
        "rank": 0,
        "index": document.index,
        "id": document.id,
        "score": round(0.2 + 0.7 * found - shade, 4),
        "strength": 0.0 if weak else found - 2 * shade,
        "weak": weak,
        "title": document.title,
        "text": text,
        "passage": number,
        "start": start,
        "stop": stop,
        "source": document.source,
        "where": where(document, start, stop),
        "place": {},
        "metadata": document.metadata,
        "scores": scores,
        "snippet": {"text": cut, "spans": spans},
    }


def weighed(text: str, other: str) -> Json:
    common = {word.lower() for word in WORD.findall(other)}
    words = []
    for number, match in enumerate(WORD.finditer(text)):
        word = match.group().lower()
        weight = (
            (0.02 + 0.012 * len(word))
            if word in common and word not in STOP
            else (-0.022 if number % 9 == 4 else 0.004 * (number % 3))
        )
        words.append({"start": match.start(), "stop": match.end(), "weight": round(weight, 4)})
    return {"text": text, "words": words}


def part(text: Json, word: Json) -> str:
    found: str = text["text"][word["start"] : word["stop"]]
    return found


def fields(documents: Sequence[Document]) -> list[Json]:
    names = list(dict.fromkeys(name for each in documents for name in each.metadata))
    return [
        _field(name, [each.metadata[name] for each in documents if name in each.metadata]) for name in names
    ]


def _field(name: str, values: Sequence[Any]) -> Json:  # Any: JSON
    first = values[0]
    if isinstance(first, bool):
        return {"name": name, "kind": "flag", "values": [True, False], "min": None, "max": None}
    if isinstance(first, int):
        return {
            "name": name,
            "kind": "number",
            "values": sorted(set(values))[:20],
            "min": min(values),
            "max": max(values),
        }
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    kind = "list" if isinstance(first, list) else "text"
    return {"name": name, "kind": kind, "values": list(dict.fromkeys(flat))[:20], "min": None, "max": None}
