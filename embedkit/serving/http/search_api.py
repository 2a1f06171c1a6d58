"""Our own routes: /search, /indexes, /documents, /similar, /explain."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from embedkit.errors import CheckpointError, IndexFileError
from embedkit.extras import load_extra
from embedkit.machine import num_cores
from embedkit.serving.engine.text_tasks import TextsWork
from embedkit.serving.http import encode_api, shard_api, write_api
from embedkit.serving.http.choosing import named_indexes, one_index
from embedkit.serving.http.messages import HttpRequest, HttpResponse, RefusedError, Route
from embedkit.serving.http.search_bodies import (
    MOST_HITS,
    TAG,
    ExplainBody,
    SearchBody,
    body_of_link,
    error_body,
    hit_json,
    one_value,
)
from embedkit.serving.indexes.computing import AnyEncoded, EngineReranker, QueryVectors, submit
from embedkit.serving.indexes.explaining import (
    MOST_CHARS,
    Explainer,
    explain_by_terms,
    explain_by_tokens,
    passage_text,
)
from embedkit.serving.indexes.live import LiveIndex
from embedkit.serving.indexes.looking import NotHereError, document, indexes_json, similar
from embedkit.serving.indexes.searching import READY_VECTORS, FoundHits, NamedHit, search_indexes
from embedkit.serving.model_names import served_name
from embedkit.serving.services import Services
from embedkit.types import TextRole
from indexes import snippets

if TYPE_CHECKING:
    from embedkit.pipelines.embedders import AnyEncoder

T = TypeVar("T")


def routes(services: Services) -> list[Route]:
    """Return our own routes; those that change an index only where `services` are writable."""
    api = _SearchApi(services)

    def route(
        method: str, path: str, handle: Any, summary: str, **more: Any
    ) -> Route:  # Any: as Route has them
        return Route(
            method=method, path=path, handle=handle, summary=summary, error_body=error_body, tag=TAG, **more
        )

    return [
        route("POST", "/search", api.search, "Search indexes.", takes=SearchBody),
        route("GET", "/search", api.search_link, "Search indexes, as a link: ?q=WORDS&index=NAME&k=10."),
        route("GET", "/indexes", api.indexes, "List the indexes, their fields, and the models."),
        route("GET", "/documents/{id:path}", api.document, "Read a document: ?index=NAME."),
        route(
            "GET",
            "/similar/{id:path}",
            api.similar,
            "Find what is like a passage: ?index=NAME&passage=0&k=10.",
        ),
        route(
            "POST",
            "/explain",
            api.explain,
            "Explain a score, word by word or term by term.",
            takes=ExplainBody,
        ),
        *encode_api.routes(services),
        *shard_api.routes(services),
        *(write_api.routes(services) if services.writable else ()),
    ]


class _SearchApi:
    def __init__(self, services: Services) -> None:
        self.services = services
        self._codec = load_extra("serve", purpose="embedkit serve")
        self._explainer = Explainer()
        # Searches wait for the disk, for the engine and, in Python, for one another.
        self._threads = ThreadPoolExecutor(min(32, 4 + 2 * num_cores()), thread_name_prefix="search")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except IndexFileError as exc:
            raise RefusedError(503, exc.message, headers={"retry-after": "1"}) from exc

    async def search(self, request: HttpRequest) -> HttpResponse:
        return await self._search(request.content)

    async def search_link(self, request: HttpRequest) -> HttpResponse:
        try:
            body = self._codec.convert(body_of_link(request), SearchBody)
        except self._codec.BodyError as exc:
            raise RefusedError(400, str(exc)) from exc
        return await self._search(body)

    async def _search(self, body: SearchBody) -> HttpResponse:
        started = perf_counter()
        wanted, indexes = body.options, named_indexes(self.services, body.index)
        gone = Event()
        reranker = self._reranker(body.rerank, gone)
        embedded: dict[object, AnyEncoded] = {}
        if wanted.mode != "text":
            embedded = await self._embedded(indexes, body.query)
        embed_seconds = perf_counter() - started
        vectors = QueryVectors(self.services.engine, embedded, gone)
        try:
            found, answer = await self._in_thread(partial(_answer, indexes, body, wanted, vectors, reranker))
        except asyncio.CancelledError:
            gone.set()
            raise
        embed_seconds += vectors.seconds
        rerank_seconds = 0.0 if reranker is None else reranker.seconds
        took = {
            "embed": embed_seconds,
            "search": found.search_seconds - vectors.seconds - rerank_seconds,
            "rerank": rerank_seconds,
            "total": perf_counter() - started,
        }
        answer["took_ms"] = {name: round(1000 * seconds, 3) for name, seconds in took.items()}
        return HttpResponse(content=answer)

    async def _embedded(self, indexes: Sequence[LiveIndex], query: str) -> dict[object, AnyEncoded]:
        """Have the query embedded by the encoder of each index, once by each, together with those of other requests."""
        waiting: dict[object, asyncio.Future[AnyEncoded]] = {}
        for index in indexes:
            embedder = index.embedder
            if embedder is None:
                raise RefusedError(400, READY_VECTORS.format(name=index.name))
            if embedder.encoder not in waiting:
                future: Future[Any] = submit(self.services.engine, embedder, [query])  # Any: of its kind
                waiting[embedder.encoder] = asyncio.wrap_future(future)
        return dict(zip(waiting, await asyncio.gather(*waiting.values()), strict=True))

    def _reranker(self, named: bool | str, gone: Event) -> EngineReranker | None:
        if named is False:
            return None
        _, model = self.services.reranker(None if named is True else named)
        return EngineReranker(model, self.services.engine, gone)

    async def indexes(self, request: HttpRequest) -> HttpResponse:
        one_value(request, ())
        listed = await self._in_thread(partial(indexes_json, list(self.services.indexes.values())))
        content = {
            "indexes": listed,
            "rerankers": list(self.services.rerankers),
            "models": list(self.services.encoders),
            "writable": self.services.writable,
        }
        return HttpResponse(content=content)

    async def document(self, request: HttpRequest) -> HttpResponse:
        asked = one_value(request, ("index",))
        index = one_index(self.services, asked.get("index"))
        return HttpResponse(content=await self._looked_up(partial(document, index, request.params["id"])))

    async def similar(self, request: HttpRequest) -> HttpResponse:
        asked = one_value(request, ("index", "passage", "k"))
        index = one_index(self.services, asked.get("index"))
        passage, k = _whole(asked, "passage", 0, least=0), _whole(asked, "k", 10, least=1)
        started = perf_counter()
        found = await self._looked_up(
            partial(similar, index, self.services.engine, request.params["id"], passage, k)
        )
        total = round(1000 * (perf_counter() - started), 3)
        content = {
            "query": None,
            "mode": "dense",
            "indexes": [index.name],
            "hits": _hits_json("", found),
            "left_out": 0,
            "models": {},
            "reranker": None,
            "notes": [],
            "took_ms": {"embed": 0.0, "search": total, "rerank": 0.0, "total": total},
        }
        return HttpResponse(content=content)

    async def explain(self, request: HttpRequest) -> HttpResponse:
        body: ExplainBody = request.content
        before, passage = 0, body.passage or 0
        if body.text is not None:
            if body.id is not None or body.passage is not None:
                raise RefusedError(
                    400, "text excludes id and passage: explain either a text or what an index holds"
                )
            text = body.text
            if body.index is not None or not self.services.encoders:
                encoder = one_index(self.services, body.index).encoder
            else:
                _, encoder = self.services.encoder(None)
        elif body.id is not None:
            index = one_index(self.services, body.index)
            text, before, encoder = await self._looked_up(partial(passage_text, index, body.id, passage))
        else:
            raise RefusedError(400, "id, with index, or text is missing: what is to be explained")
        if encoder is None:
            raise RefusedError(400, READY_VECTORS.format(name=body.index))
        for name, value in (("query", body.query), ("text", text)):
            if len(value) > MOST_CHARS:
                raise RefusedError(
                    413, f"{name} has {len(value):,} characters; {MOST_CHARS:,} are explained at most"
                )
        found = await self._explained(encoder, body.query, text)
        found["document"]["passage_start"] = before
        return HttpResponse(content=found)

    async def _explained(self, encoder: AnyEncoder, query: str, text: str) -> dict[str, Any]:  # Any: JSON
        """Explain a score by the vectors of terms or tokens that it is a sum over, else by a copy of the model that torch runs."""
        from embedkit.encoding.multi_vector import MultiVectorEncoder
        from embedkit.encoding.sparse import SparseEncoder

        if isinstance(encoder, MultiVectorEncoder):
            return await self._in_thread(partial(explain_by_tokens, encoder, query, text))
        if isinstance(encoder, SparseEncoder):
            sides: Sequence[tuple[TextRole, str]] = (("query", query), ("document", text))
            works = [TextsWork(encoder=encoder, texts=[each], role=role) for role, each in sides]
            futures = [asyncio.wrap_future(self.services.engine.encode(work)) for work in works]
            asked, read = await asyncio.gather(*futures)
            return await self._in_thread(partial(explain_by_terms, encoder, query, text, (asked, read)))
        try:
            return await self._in_thread(partial(self._explainer.explain, encoder, query, text))
        except CheckpointError as exc:
            raise RefusedError(400, exc.message) from exc

    async def _looked_up(self, look: Callable[[], T]) -> T:
        try:
            return await self._in_thread(look)
        except NotHereError as exc:
            raise RefusedError(404, exc.message) from exc


def _whole(asked: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = asked.get(name, str(default))
    # Python reads no number of more than 4,300 digits.
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= MOST_HITS:
        raise RefusedError(
            400, f"{name} is {text[:40]!r}; it must be a whole number from {least} to {MOST_HITS:,}"
        )
    return int(text)


def _answer(
    indexes: Sequence[LiveIndex],
    body: SearchBody,
    wanted: Any,  # Any: SearchOptions
    vectors: QueryVectors,
    reranker: EngineReranker | None,
) -> tuple[FoundHits, dict[str, Any]]:  # Any: JSON
    found = search_indexes(indexes, body.query, wanted, vectors, reranker)
    shown = [each for each in found.hits if body.all or not each.judged.weak]
    return found, {
        "query": body.query,
        "mode": wanted.mode,
        "indexes": [index.name for index in indexes],
        "hits": _hits_json(body.query, shown),
        "left_out": len(found.hits) - len(shown),
        "models": dict(found.models),
        "reranker": None if reranker is None else served_name(reranker.name),
        "notes": list(found.notes),
    }


def _hits_json(query: str, hits: Sequence[NamedHit]) -> list[dict[str, Any]]:  # Any: JSON
    cut = snippets(query, [each.judged.hit.text for each in hits])
    return [
        hit_json(each, rank, {"text": snippet.text, "spans": snippet.spans})
        for rank, (each, snippet) in enumerate(zip(hits, cut, strict=True), 1)
    ]
