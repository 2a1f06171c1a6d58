"""Queries and candidates in the hands of the engine, so that those of many requests are computed together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import EmbedkitError
from embedkit.retrieval.reranker import Reranker
from embedkit.serving.engine.engine import Embedded, EmbedWork, Engine, ScoreWork
from embedkit.types import Float32

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.reranking.cross_encoder import CrossEncoder


class AbandonedError(EmbedkitError):
    """Nobody waits for the answer any more."""


def query_work(encoder: Encoder, queries: Sequence[str]) -> EmbedWork:
    return EmbedWork(encoder=encoder, texts=queries, role="query", priority="interactive")


class QueryVectors:
    """The vectors of the queries of one request, by encoder: those that were computed before, else computed when asked for."""

    def __init__(self, engine: Engine, known: dict[Encoder, Embedded], abandoned: Event) -> None:
        self._engine, self.known, self._abandoned = engine, known, abandoned
        self.seconds = 0.0

    def embed(self, encoder: Encoder, queries: Sequence[str]) -> Float32:
        """Return (Q, E) vectors; zeros, with which a search finds nothing, for what is empty or unknown to the model."""
        if encoder not in self.known:
            if self._abandoned.is_set():
                raise AbandonedError("the client has gone")
            started = time.perf_counter()
            self.known[encoder] = self._engine.embed(query_work(encoder, queries)).result()
            self.seconds += time.perf_counter() - started
        embedded = self.known[encoder]
        nothing = embedded.empty | embedded.unknown
        return np.where(nothing[:, None], np.float32(0), embedded.vectors)


class EngineReranker(Reranker):
    """A cross-encoder that is computed by the engine; `seconds` is what was waited for it."""

    def __init__(self, model: CrossEncoder, engine: Engine, abandoned: Event) -> None:
        self.name, self.weight = model.name, model.weight
        self._model, self._engine, self._abandoned = model, engine, abandoned
        self.seconds, self.truncated = 0.0, 0

    def score(self, query: str, texts: Sequence[str]) -> Float32:
        if self._abandoned.is_set():
            raise AbandonedError("the client has gone")
        started = time.perf_counter()
        work = ScoreWork(model=self._model, queries=[query] * len(texts), texts=texts, priority="interactive")
        scored = self._engine.score(work).result()
        self.seconds += time.perf_counter() - started
        self.truncated += int(scored.truncated.sum())
        return scored.scores

    def strength(self, score: float) -> float:
        return self._model.strength(score)
