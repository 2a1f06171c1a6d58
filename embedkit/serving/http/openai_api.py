"""OpenAI's /v1/embeddings and /v1/models; the first also takes what Jina's clients send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.serving.http.api_engine import ApiEngine, Manners, TextsToEmbed
from embedkit.serving.http.messages import HttpRequest, HttpResponse, RefusedError, Route
from embedkit.serving.http.vector_forms import VectorForm, written
from embedkit.serving.services import Services
from embedkit.types import TextRole

TAG = "OpenAI"
MANNERS = Manners(cut_by="leave out truncate and the header x-embedkit-on-truncate")
ROLES: Mapping[str, TextRole | None] = {
    "query": "query",
    "document": "document",
    "passage": "document",
    "retrieval.query": "query",
    "retrieval.passage": "document",
    "text-matching": None,
    "classification": None,
    "separation": None,
    "code.query": "query",
    "code.passage": "document",
}
TOKEN_IDS = (
    "input holds token ids, which another model's tokenizer made; this server makes tokens itself. Send texts: with "
    "langchain-openai by OpenAIEmbeddings(check_embedding_ctx_length=False)"
)


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """A text as Jina's clients may send it."""

    text: str


@dataclass(frozen=True, kw_only=True)
class EmbeddingsRequest:
    """Texts to embed. `model`, `encoding_format`, `dimensions` and `user` are OpenAI's; the rest is Jina's, and `input_type` NVIDIA's.

    `input_type` or `task` say whether texts are queries or documents, which matters to models with a prompt for each.
    `truncate` false refuses texts that are longer than the model reads.
    """

    input: str | list[str | int | list[int] | TextInput]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None
    input_type: Literal["query", "document", "passage"] | None = None
    task: (
        Literal[
            "retrieval.query",
            "retrieval.passage",
            "text-matching",
            "classification",
            "separation",
            "code.query",
            "code.passage",
        ]
        | None
    ) = None
    embedding_type: VectorForm | None = None
    normalized: bool | None = None
    truncate: bool | None = None
    late_chunking: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbeddingRow:
    """The vector of one text: numbers, or in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


@dataclass(frozen=True, kw_only=True)
class EmbeddingsUsage:
    """Tokens that were read, special ones included; `truncated` texts were cut."""

    prompt_tokens: int
    total_tokens: int
    truncated: int


@dataclass(frozen=True, kw_only=True)
class EmbeddingsResponse:
    """The vectors of all texts, in order."""

    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: EmbeddingsUsage


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """A model that is served: an encoder, or a reranker."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


@dataclass(frozen=True, kw_only=True)
class ModelList:
    """All models that are served, aliases included."""

    object: Literal["list"]
    data: list[ModelRow]


def error_body(status: int, message: str) -> Mapping[str, Any]:  # Any: JSON
    """Return an error as OpenAI's clients parse it; `detail` is where Jina's look."""
    kind, code = "invalid_request_error", None
    match status:
        case 401:
            kind, code = "authentication_error", "invalid_api_key"
        case 403 | 421:
            kind = "permission_error"
        case 429:
            kind, code = "rate_limit_error", "rate_limit_exceeded"
        case _ if status >= 500:
            kind = "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}, "detail": message}


def routes(services: Services) -> list[Route]:
    """Return the routes of OpenAI's API."""
    engine = ApiEngine(services, MANNERS)

    async def embeddings(request: HttpRequest) -> HttpResponse:
        asked: EmbeddingsRequest = request.content
        if asked.late_chunking:
            raise RefusedError(
                400, "late_chunking is true; this server embeds each text by itself. Leave it out"
            )
        if asked.input_type is not None and asked.task is not None:
            raise RefusedError(400, "input_type and task are both given; name one of them")
        vectors, told = await engine.embed(
            request,
            TextsToEmbed(
                texts=_texts(asked.input),
                field="input",
                model=asked.model,
                role=ROLES.get(asked.input_type or asked.task or ""),
                dimensions=asked.dimensions,
                on_truncate="error" if asked.truncate is False else "ok",
            ),
        )
        if asked.normalized:
            vectors = normalize(vectors)
        form = asked.embedding_type or asked.encoding_format or "float"
        rows = [
            {"object": "embedding", "index": place, "embedding": vector}
            for place, vector in enumerate(written(vectors, form))
        ]
        usage = {
            "prompt_tokens": told.tokens,
            "total_tokens": told.tokens,
            "truncated": told.truncated,
        }
        content = {"object": "list", "data": rows, "model": told.model, "usage": usage}
        return HttpResponse(content=content, headers=told.headers)

    def row(name: str) -> Mapping[str, Any]:  # Any: JSON
        return {"id": name, "object": "model", "created": int(services.started), "owned_by": "embedkit"}

    async def models(request: HttpRequest) -> HttpResponse:
        return HttpResponse(content={"object": "list", "data": [row(name) for name in model_names(services)]})

    async def model(request: HttpRequest) -> HttpResponse:
        name = request.params["id"]
        if name not in model_names(services):
            there = ", ".join(model_names(services))
            raise RefusedError(404, f"no model {name[:200]!r} is served here; there is {there}")
        return HttpResponse(content=row(name))

    return [
        Route(
            method="POST",
            path="/v1/embeddings",
            handle=embeddings,
            error_body=error_body,
            summary="Embed texts, as OpenAI and Jina do",
            tag=TAG,
            takes=EmbeddingsRequest,
            gives=EmbeddingsResponse,
        ),
        Route(
            method="GET",
            path="/v1/models",
            handle=models,
            error_body=error_body,
            summary="List the models",
            tag=TAG,
            gives=ModelList,
        ),
        Route(
            method="GET",
            path="/v1/models/{id:path}",
            handle=model,
            error_body=error_body,
            summary="Tell of one model",
            tag=TAG,
            gives=ModelRow,
        ),
    ]


def model_names(services: Services) -> list[str]:
    """Return the names of all models, and the aliases of those."""
    return list(dict.fromkeys([*services.encoders, *services.rerankers, *services.aliases]))


def _texts(given: str | list[str | int | list[int] | TextInput]) -> list[str]:
    """Return the texts of a request.

    Raises:
        RefusedError: these are token ids.
    """
    if isinstance(given, str):
        return [given]
    texts = []
    for each in given:
        if isinstance(each, int | list):
            raise RefusedError(400, TOKEN_IDS)
        texts.append(each if isinstance(each, str) else each.text)
    return texts
