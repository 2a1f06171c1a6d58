"""The part of Ollama's API that embeds: /api/embed, the older /api/embeddings, and what its clients ask around them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.serving.http.api_engine import ApiEngine, Manners, TextsToEmbed
from embedkit.serving.http.messages import HttpRequest, HttpResponse, Route
from embedkit.serving.services import Services

TAG = "Ollama"
MANNERS = Manners(cut_by="truncate=true")
LATEST = ":latest"  # what Ollama's clients put behind a model's name that has no tag


@dataclass(frozen=True, kw_only=True)
class OllamaEmbedRequest:
    """Texts to embed. `truncate` false refuses those that are longer than the model reads.

    `options` and `keep_alive` are Ollama's settings of how a model runs; they change nothing here.
    """

    model: str
    input: str | list[str] = ""
    truncate: bool = True
    dimensions: int | None = None
    options: dict[str, Any] | None = None  # Any: whatever Ollama's settings are
    keep_alive: str | float | None = None


@dataclass(frozen=True, kw_only=True)
class OllamaEmbedResponse:
    """The vectors of all texts, of unit length, and how long they took in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


@dataclass(frozen=True, kw_only=True)
class OllamaEmbeddingsRequest:
    """One text to embed, as older clients ask."""

    model: str
    prompt: str = ""
    options: dict[str, Any] | None = None  # Any: whatever Ollama's settings are
    keep_alive: str | float | None = None


@dataclass(frozen=True, kw_only=True)
class OllamaEmbeddingsResponse:
    """The vector of the text."""

    embedding: list[float]


@dataclass(frozen=True, kw_only=True)
class OllamaDetails:
    """What kind of model it is."""

    format: str
    family: str
    families: list[str]
    quantization_level: str


@dataclass(frozen=True, kw_only=True)
class OllamaModel:
    """A model that is served."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails


@dataclass(frozen=True, kw_only=True)
class OllamaModels:
    """All encoders that are served."""

    models: list[OllamaModel]


@dataclass(frozen=True, kw_only=True)
class OllamaVersion:
    """The version of this server."""

    version: str


def error_body(status: int, message: str) -> Mapping[str, Any]:  # Any: JSON
    """Return an error as Ollama's clients parse it."""
    return {"error": message}


def routes(services: Services) -> list[Route]:
    """Return the routes of Ollama's API."""
    engine = ApiEngine(services, MANNERS)

    def name_of(asked: str) -> str:
        known = asked in services.encoders or asked in services.aliases
        return asked if known else asked.removesuffix(LATEST)

    async def embed(request: HttpRequest) -> HttpResponse:
        started = time.perf_counter_ns()
        asked: OllamaEmbedRequest = request.content
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        answer: dict[str, Any] = {"model": asked.model, "embeddings": [], "load_duration": 0}  # Any: JSON
        headers: Mapping[str, str] = {}
        if texts in ([], [""]):  # how clients ask for a model to be loaded
            services.encoder(name_of(asked.model))
            answer["prompt_eval_count"] = 0
        else:
            vectors, told = await engine.embed(
                request,
                TextsToEmbed(
                    texts=texts,
                    field="input",
                    model=name_of(asked.model),
                    dimensions=asked.dimensions,
                    on_truncate="ok" if asked.truncate else "error",
                ),
            )
            answer |= {"embeddings": normalize(vectors), "prompt_eval_count": told.tokens}
            headers = told.headers
        answer["total_duration"] = time.perf_counter_ns() - started
        return HttpResponse(content=answer, headers=headers)

    async def embeddings(request: HttpRequest) -> HttpResponse:
        asked: OllamaEmbeddingsRequest = request.content
        if not asked.prompt:
            services.encoder(name_of(asked.model))
            return HttpResponse(content={"embedding": []})
        vectors, told = await engine.embed(
            request, TextsToEmbed(texts=[asked.prompt], field="prompt", model=name_of(asked.model))
        )
        return HttpResponse(content={"embedding": vectors[0]}, headers=told.headers)

    async def tags(request: HttpRequest) -> HttpResponse:
        return HttpResponse(content={"models": [_row(services, name) for name in services.encoders]})

    async def versions(request: HttpRequest) -> HttpResponse:
        return HttpResponse(content={"version": version("embedkit")})

    described = (
        (
            "POST",
            "/api/embed",
            embed,
            "Embed texts, as Ollama does",
            OllamaEmbedRequest,
            OllamaEmbedResponse,
        ),
        (
            "POST",
            "/api/embeddings",
            embeddings,
            "Embed one text, as older clients of Ollama ask",
            OllamaEmbeddingsRequest,
            OllamaEmbeddingsResponse,
        ),
        ("GET", "/api/tags", tags, "List the encoders", None, OllamaModels),
        ("GET", "/api/version", versions, "Tell the version of this server", None, OllamaVersion),
    )
    return [
        Route(
            method=method,
            path=path,
            handle=handle,
            error_body=error_body,
            summary=summary,
            tag=TAG,
            takes=takes,
            gives=gives,
        )
        for method, path, handle, summary, takes, gives in described
    ]


def _row(services: Services, name: str) -> Mapping[str, Any]:  # Any: JSON
    encoder = services.encoders[name]
    family = "static" if encoder.folder.static else encoder.folder.family
    size = sum(path.stat().st_size for path in encoder.folder.path.rglob("*.safetensors"))
    return {
        "name": name,
        "model": name,
        "modified_at": datetime.fromtimestamp(services.started, UTC).isoformat(),
        "size": size,
        "digest": str(encoder.fingerprint.get("weights", "")),
        "details": {
            "format": "safetensors",
            "family": family,
            "families": [family],
            "quantization_level": encoder.precision,
        },
    }
