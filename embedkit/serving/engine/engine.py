"""`Engine`: computes what requests ask for, in batches across requests."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import EmbedkitError
from embedkit.serving.limits import Limits
from embedkit.types import Float32, OnTruncate, TextRole

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.reranking.cross_encoder import CrossEncoder

Priority = Literal["interactive", "bulk"]


class QueueFullError(EmbedkitError):
    """As many tokens wait as may; `retry_seconds` is how long those will take."""

    def __init__(self, message: str, retry_seconds: float) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


@dataclass(frozen=True, kw_only=True)
class EmbedWork:
    """Texts to be embedded as (N, E). `prompt` None is the model's for the role, or without one its default."""

    encoder: Encoder
    texts: Sequence[str]
    role: TextRole | None = None
    prompt: str | None = None
    on_truncate: OnTruncate = "ok"
    priority: Priority = "bulk"


@dataclass(frozen=True, kw_only=True)
class ScoreWork:
    """Pairs to be scored: query i with text i."""

    model: CrossEncoder
    queries: Sequence[str]
    texts: Sequence[str]
    priority: Priority = "bulk"


@dataclass(frozen=True)
class Embedded:
    """Vectors, (N, E) float32, with the tokens that were read of each text, and which were cut or hold nothing.

    Shapes:
        tokens: (N,) int64, special ones included; truncated, empty, unknown: (N,) bool
    """

    vectors: Float32
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    unknown: NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """Scores, (N,) float32, higher is better; (N,) tokens read and which pairs were cut."""

    scores: Float32
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]


class Engine:
    """Placeholder until the scheduler is there: one call after another."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")

    def embed(self, work: EmbedWork) -> Future[Embedded]:
        return self._thread.submit(self._embed, work)

    def score(self, work: ScoreWork) -> Future[Scored]:
        return self._thread.submit(self._score, work)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _embed(self, work: EmbedWork) -> Embedded:
        encoder, prompt = work.encoder, work.prompt
        if prompt is None and work.role is not None:
            prompt = encoder.role_prompt(work.role)
        parts = list(encoder.encode_windows(work.texts, prompt=prompt, on_truncate=work.on_truncate))
        vectors = np.concatenate([part.embeddings for part in parts])
        if work.role == "query":
            vectors = encoder.as_queries(vectors)
        tokens = np.array([len(encoder.tokenizer.encode([text]).input_ids) for text in work.texts], np.int64)
        return Embedded(
            vectors,
            tokens,
            np.concatenate([part.truncated for part in parts]),
            np.concatenate([part.empty for part in parts]),
            np.concatenate([part.unknown for part in parts]),
        )

    def _score(self, work: ScoreWork) -> Scored:
        batch = work.model.folder.encode_pairs(work.queries, work.texts, truncation=work.model.truncation)
        return Scored(work.model.score_pairs(work.queries, work.texts), batch.lengths, batch.truncated)
