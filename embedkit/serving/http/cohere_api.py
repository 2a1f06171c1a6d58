"""Cohere's /v1/rerank, /v2/rerank, /v1/embed and /v2/embed; the first also answers Jina's clients."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from embedkit.serving.engine.scoring import text_tokenizer
from embedkit.serving.http.api_engine import ApiEngine, Manners, TextsToEmbed, TextsToScore, Told, best_first
from embedkit.serving.http.cohere_messages import (
    CohereEmbedRequest,
    CohereEmbedResponse,
    CohereRerankRequest,
    CohereRerankResponse,
    Input,
    InputType,
)
from embedkit.serving.http.messages import Handler, HttpRequest, HttpResponse, RefusedError, Route
from embedkit.serving.http.vector_forms import written
from embedkit.serving.services import Services
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import TextRole

TAG = "Cohere and Jina"
MANNERS = Manners(cut_by="truncate=END, or without truncation=false")
ROLES: Mapping[InputType, TextRole] = {"search_query": "query", "search_document": "document"}


def error_body(status: int, message: str) -> Mapping[str, Any]:  # Any: JSON
    """Return an error as Cohere's clients parse it; `detail` is where Jina's look."""
    return {"message": message, "detail": message}


def routes(services: Services) -> list[Route]:
    """Return the routes of Cohere's API."""
    engine = ApiEngine(services, MANNERS)
    described: list[tuple[str, Handler, str, type, type]] = []
    for number in ("1", "2"):
        described += [
            (
                f"/v{number}/rerank",
                partial(rerank, engine, number),
                "Order documents by relevance to a query, as Cohere"
                + (" and Jina do" * (number == "1") or " does"),
                CohereRerankRequest,
                CohereRerankResponse,
            ),
            (
                f"/v{number}/embed",
                partial(embed, engine, number),
                f"Embed texts, as Cohere's version {number} does",
                CohereEmbedRequest,
                CohereEmbedResponse,
            ),
        ]
    return [
        Route(
            method="POST",
            path=path,
            handle=handle,
            error_body=error_body,
            summary=summary,
            tag=TAG,
            takes=takes,
            gives=gives,
        )
        for path, handle, summary, takes, gives in described
    ]


async def rerank(engine: ApiEngine, number: str, request: HttpRequest) -> HttpResponse:
    """Score documents by the reranker."""
    asked: CohereRerankRequest = request.content
    if asked.top_n is not None and asked.top_n < 1:
        raise RefusedError(400, f"top_n is {asked.top_n}; it must be at least 1")
    texts = _documents(asked)
    texts, shortened = await _shortened(engine, asked, texts)
    scores, probabilities, told = await engine.score(
        request,
        TextsToScore(
            query=asked.query,
            texts=texts,
            field="documents",
            model=asked.model,
            on_truncate="error" if asked.truncation is False else "ok",
        ),
    )
    told = Told(told.model, told.tokens, max(told.truncated, shortened))
    results = [
        {
            "index": place,
            "relevance_score": float(probabilities[place]),
            **({"document": {"text": texts[place]}} if asked.return_documents else {}),
        }
        for place in best_first(scores, asked.top_n)
    ]
    content = {
        "id": request.request_id,
        "model": told.model,
        "results": results,
        "meta": _meta(number, {"search_units": 1}, told, len(texts), "documents"),
        "usage": {
            "prompt_tokens": told.tokens,
            "total_tokens": told.tokens,
            "truncated": told.truncated,
        },
    }
    return HttpResponse(content=content, headers=told.headers)


async def embed(engine: ApiEngine, number: str, request: HttpRequest) -> HttpResponse:
    """Embed texts by the encoder."""
    asked: CohereEmbedRequest = request.content
    texts = _embedded_texts(asked)
    read, shortened = await _first_tokens(engine, asked, texts)
    vectors, told = await engine.embed(
        request,
        TextsToEmbed(
            texts=read,
            field="texts",
            model=asked.model,
            role=None if asked.input_type is None else ROLES.get(asked.input_type),
            dimensions=asked.output_dimension,
            on_truncate="error" if asked.truncate == "NONE" else "ok",
            cut_left=asked.truncate == "START",
        ),
    )
    told = Told(told.model, told.tokens, max(told.truncated, shortened))
    plain = number == "1" and asked.embedding_types is None
    forms = asked.embedding_types or ["float"]
    content = {
        "id": request.request_id,
        "embeddings": vectors if plain else {form: written(vectors, form) for form in forms},
        "texts": texts,
        "meta": _meta(number, {"input_tokens": told.tokens}, told, len(texts), "texts"),
        "response_type": "embeddings_floats" if plain else "embeddings_by_type",
    }
    return HttpResponse(content=content, headers=told.headers)


async def _shortened(
    engine: ApiEngine, asked: CohereRerankRequest, texts: list[str]
) -> tuple[list[str], int]:
    """Cut documents to `max_tokens_per_doc`; say how many were longer.

    Raises:
        RefusedError: that is no number of tokens.
    """
    if asked.max_tokens_per_doc is None:
        return texts, 0
    if asked.max_tokens_per_doc < 1:
        raise RefusedError(400, f"max_tokens_per_doc is {asked.max_tokens_per_doc}; it must be at least 1")
    engine.check(texts, "documents", may_be_empty=True)
    _, model = engine.services.reranker(asked.model)
    tokenizer = text_tokenizer(model)
    if asked.max_tokens_per_doc >= tokenizer.max_length:  # the model reads less anyway
        return texts, 0
    return await asyncio.to_thread(cut_texts, texts, tokenizer, asked.max_tokens_per_doc)


async def _first_tokens(
    engine: ApiEngine, asked: CohereEmbedRequest, texts: list[str]
) -> tuple[list[str], int]:
    """Cut texts to `max_tokens`; say how many were longer.

    Raises:
        RefusedError: that is no number of tokens, or cutting was refused.
    """
    if asked.max_tokens is None:
        return texts, 0
    if asked.max_tokens < 1:
        raise RefusedError(400, f"max_tokens is {asked.max_tokens}; it must be at least 1")
    if asked.truncate == "NONE":
        raise RefusedError(400, "max_tokens is given, and truncate is NONE; leave out one of them")
    engine.check(texts, "texts")
    _, encoder = engine.services.encoder(asked.model)
    if asked.max_tokens >= encoder.tokenizer.max_length:  # the model reads less anyway
        return texts, 0
    cut = partial(cut_texts, texts, encoder.tokenizer, asked.max_tokens, left=asked.truncate == "START")
    return await asyncio.to_thread(cut)


def cut_texts(
    texts: Sequence[str], tokenizer: Tokenizer, count: int, *, left: bool = False
) -> tuple[list[str], int]:
    """Cut texts to their first `count` tokens, or their last; say how many were longer. Special tokens do not count."""
    found, longer = [], 0
    for text in texts:
        places = tokenizer.offsets(text) if len(text) > count else []
        if len(places) > count:
            longer += 1
            text = text[places[-count][0] :] if left else text[: places[count - 1][1]]
        found.append(text)
    return found, longer


def _documents(asked: CohereRerankRequest) -> list[str]:
    """Return the texts of the documents.

    Raises:
        RefusedError: an object lacks a field, or it holds no text.
    """
    names = asked.rank_fields or ["text"]
    texts = []
    for place, document in enumerate(asked.documents):
        if isinstance(document, str):
            texts.append(document)
            continue
        values = [document.get(name) for name in names]
        for name, value in zip(names, values, strict=True):
            if not isinstance(value, str):
                got = "missing" if name not in document else f"of type {type(value).__name__}"
                raise RefusedError(400, f"documents[{place}].{name} is {got}; it must be a text")
        texts.append("\n".join(str(value) for value in values))
    return texts


def _embedded_texts(asked: CohereEmbedRequest) -> list[str]:
    """Return the texts of a request.

    Raises:
        RefusedError: there are images, or not just one of `texts` and `inputs`.
    """
    if asked.images or asked.input_type == "image":
        raise RefusedError(400, "images are given; the models here embed texts. Send texts")
    if (asked.texts is None) == (asked.inputs is None):
        given = "neither is" if asked.texts is None else "both are"
        raise RefusedError(400, f"texts or inputs must be given; {given}")
    if asked.texts is not None:
        return asked.texts
    return [_text(each, place) for place, each in enumerate(asked.inputs or ())]


def _text(given: Input, place: int) -> str:
    parts = []
    for part in given.content:
        if part.type != "text" or part.text is None:
            raise RefusedError(
                400,
                f"inputs[{place}] has a content of type {part.type} without a text; the models here embed texts",
            )
        parts.append(part.text)
    return "\n".join(parts)


def _meta(
    number: str, billed: Mapping[str, int], told: Told, count: int, what: str
) -> Mapping[str, Any]:  # Any: JSON
    meta: dict[str, Any] = {"api_version": {"version": number}, "billed_units": billed}  # Any: JSON
    if told.truncated:
        meta["warnings"] = [f"{told.truncated} of {count} {what} were cut to what {told.model} reads"]
    return meta
