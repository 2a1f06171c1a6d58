"""Scoring texts against a query by the engine, whatever kind of reranker it is.

A cross-encoder's pairs are one piece of work. A multi-vector model encodes the query and, a group at a time, the texts, each together with
those of other requests; MaxSim compares them afterwards, outside the engine's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.retrieval.token_vectors import TokenVectors
from embedkit.serving.engine.engine import Engine, Priority, Scored, ScoreWork
from embedkit.serving.engine.text_tasks import EncodedTexts, TextsWork
from embedkit.types import TextRole

if TYPE_CHECKING:
    from embedkit.reranking.maxsim import MaxSim
    from embedkit.tokenization.tokenizer import Tokenizer

AnyReranker: TypeAlias = "CrossEncoder | MaxSim"
Steps = Generator["Future[Any]", Any, Scored]  # Any: what the engine answers, which is sent back


@dataclass(frozen=True, kw_only=True)
class RerankWork:
    """Texts to be scored against a query; `raw` asks a cross-encoder for log-odds, before any activation or calibration."""

    model: AnyReranker
    query: str
    texts: Sequence[str]
    raw: bool = False
    priority: Priority = "bulk"


def text_tokenizer(model: AnyReranker) -> Tokenizer:
    """Return what cuts the texts that a reranker reads."""
    if isinstance(model, CrossEncoder):
        return model.folder.tokenizer
    return model.tokens.tokenizer("document")


def token_budget(model: AnyReranker) -> int:
    """Return how many tokens a reranker reads at a time."""
    return model.token_budget if isinstance(model, CrossEncoder) else model.tokens.token_budget


def score(engine: Engine, work: RerankWork) -> Scored:
    """Score texts, and wait for it.

    Raises:
        QueueFullError, EngineClosedError: the engine takes no more.
    """
    steps = _steps(engine, work)
    try:
        future = next(steps)
        while True:
            future = steps.send(future.result())
    except StopIteration as done:
        scored: Scored = done.value
        return scored
    finally:
        steps.close()


async def score_soon(engine: Engine, work: RerankWork) -> Scored:
    """Score texts; cancelling reaches the engine. Raises as `score` does."""
    steps = _steps(engine, work)
    try:
        found: Any = None  # Any: as above
        while True:
            step = await asyncio.to_thread(partial(_next, steps, found))
            if isinstance(step, Scored):
                return step
            found = await asyncio.wrap_future(step)
    finally:
        steps.close()


def _next(steps: Steps, found: Any) -> Future[Any] | Scored:  # Any: as above
    """Go on to the next thing to wait for, or to the end: a future cannot carry a StopIteration."""
    try:
        return steps.send(found)
    except StopIteration as done:
        scored: Scored = done.value
        return scored


def _steps(engine: Engine, work: RerankWork) -> Steps:
    """Yield what is to be waited for, and be sent its result; return the scores. Closed early, it cancels what it waits for."""
    if isinstance(work.model, CrossEncoder):
        pairs = ScoreWork(
            model=work.model,
            queries=[work.query] * len(work.texts),
            texts=work.texts,
            raw=work.raw,
            priority=work.priority,
        )
        scored: Scored = yield from _waiting(engine.score(pairs))
        return scored
    return (yield from _maxsim(engine, work, work.model))


def _waiting(future: Future[Any]) -> Generator[Future[Any], Any, Any]:  # Any: as above
    """Wait for a future; where nobody does so any more, cancel it."""
    try:
        return (yield future)
    finally:
        future.cancel()  # which does nothing to what is done


def _maxsim(engine: Engine, work: RerankWork, model: MaxSim) -> Steps:
    from embedkit.reranking.maxsim import GROUP_TEXTS, mean_maxsim

    def encode(texts: Sequence[str], role: TextRole) -> Future[EncodedTexts]:
        return engine.encode(
            TextsWork(encoder=model.tokens, texts=texts, role=role, keep_all=True, priority=work.priority)
        )

    scores = np.zeros(len(work.texts), np.float32)
    tokens = np.zeros(len(work.texts), np.int64)
    truncated = np.zeros(len(work.texts), np.bool_)
    if not work.texts:
        return Scored(scores, tokens, truncated)
    asked: EncodedTexts = yield from _waiting(encode([work.query], "query"))
    assert isinstance(asked.vectors, TokenVectors)
    tokens[0] = asked.tokens.sum()
    for start in range(0, len(work.texts), GROUP_TEXTS):
        there = slice(start, start + GROUP_TEXTS)
        found: EncodedTexts = yield from _waiting(encode(work.texts[there], "document"))
        assert isinstance(found.vectors, TokenVectors)
        scores[there] = mean_maxsim(asked.vectors, found.vectors)
        tokens[there] += found.tokens
        truncated[there] = found.truncated | asked.truncated
    return Scored(scores, tokens, truncated)
