"""Queries and candidates in the hands of the engine, so that those of many requests are computed together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import EmbedkitError
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.vectors import Vectors
from embedkit.serving.engine.engine import Embedded, EmbedWork, Engine, Priority
from embedkit.serving.engine.scoring import AnyReranker, RerankWork, score
from embedkit.serving.engine.text_tasks import EncodedTexts, TextsWork
from embedkit.types import Float32, TextRole

if TYPE_CHECKING:
    from embedkit.pipelines.embedders import AnyEmbedder

AnyEncoded = Embedded | EncodedTexts


class AbandonedError(EmbedkitError):
    """Nobody waits for the answer any more."""


def submit(
    engine: Engine,
    embedder: AnyEmbedder,
    texts: Sequence[str],
    *,
    role: TextRole = "query",
    priority: Priority = "interactive",
) -> Future[Embedded] | Future[EncodedTexts]:
    """Have texts encoded by an index's encoder, of whichever kind.

    Raises:
        QueueFullError: the engine takes no more.
    """
    from embedkit.encoding.embedder import Embedder

    if isinstance(embedder, Embedder):
        return engine.embed(EmbedWork(encoder=embedder.encoder, texts=texts, role=role, priority=priority))
    return engine.encode(TextsWork(encoder=embedder.encoder, texts=texts, role=role, priority=priority))


def vectors_of(encoded: AnyEncoded) -> Vectors:
    """Return the vectors of queries; zeros, or none, with which a search finds nothing, for what is empty or unknown to the model."""
    if isinstance(encoded, EncodedTexts):
        return encoded.vectors
    nothing = encoded.empty | encoded.unknown
    return np.where(nothing[:, None], np.float32(0), encoded.vectors)


class QueryVectors:
    """The vectors of the queries of one request, by encoder: those that were computed before, else computed when asked for."""

    def __init__(self, engine: Engine, known: dict[object, AnyEncoded], abandoned: Event) -> None:
        self._engine, self.known, self._abandoned = engine, known, abandoned
        self.seconds = 0.0

    def embed(self, embedder: AnyEmbedder, queries: Sequence[str]) -> Vectors:
        """Return the vectors of Q queries, of the encoder's kind."""
        encoder = embedder.encoder
        if encoder not in self.known:
            if self._abandoned.is_set():
                raise AbandonedError("the client has gone")
            started = time.perf_counter()
            self.known[encoder] = submit(self._engine, embedder, queries).result()
            self.seconds += time.perf_counter() - started
        return vectors_of(self.known[encoder])


class EngineReranker(Reranker):
    """A reranker that is computed by the engine; `seconds` is what was waited for it."""

    def __init__(self, model: AnyReranker, engine: Engine, abandoned: Event) -> None:
        self.name, self.weight = model.name, model.weight
        self._model, self._engine, self._abandoned = model, engine, abandoned
        self.seconds, self.truncated = 0.0, 0

    def score(self, query: str, texts: Sequence[str]) -> Float32:
        if self._abandoned.is_set():
            raise AbandonedError("the client has gone")
        started = time.perf_counter()
        work = RerankWork(model=self._model, query=query, texts=texts, priority="interactive")
        scored = score(self._engine, work)
        self.seconds += time.perf_counter() - started
        self.truncated += int(scored.truncated.sum())
        return scored.scores

    def strength(self, score: float) -> float:
        return self._model.strength(score)
