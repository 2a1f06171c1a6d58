"""The steps of each kind of work: how its texts become tokens, what computes them, and what the answer is made of.

All of it is the encoder's or the cross-encoder's own; a task only keeps the place of each part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedkit.encoding.windows import TextRefusedError
from embedkit.errors import CheckpointError, RecordError
from embedkit.serving.engine.spans import Span, estimated_tokens, text_bytes
from embedkit.serving.engine.work import (
    Embedded,
    EmbedWork,
    Kind,
    Priority,
    Scored,
    ScoreWork,
    TokensOfTexts,
    TokenVectorsWork,
)
from embedkit.tokenization.batch import TokenBatch

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.windows import Prompt, TokenizedWindow
    from embedkit.reranking.pairs import PairCounts

Answer = TypeVar("Answer")
# Token vectors are a thousand times what their text is: more than this in one answer is refused.
MOST_TOKEN_VECTOR_BYTES = 2**28


@dataclass(frozen=True)
class Tokens:
    """The sequences of a window, and whatever its task needs to make answers of their outputs."""

    batch: TokenBatch
    of: Any  # Any: a TokenizedWindow, or PairCounts


class Task(ABC, Generic[Answer]):
    """One request's work. `add` gets each window's outputs once, in any order; `answer` is asked for after the last."""

    kind: Kind
    model: Any  # Any: an Encoder or CrossEncoder; what tasks share a turn, and with the same kind and skip batches
    skip = 0
    padded = True  # a batch keeps to the budget even if padded to its longest sequence
    priority: Priority
    estimates: NDArray[np.int64]  # (N,) tokens of each text, about

    @property
    def token_budget(self) -> int:
        """The tokens of a batch, at most."""
        budget: int = self.model.token_budget
        return budget

    @abstractmethod
    def tokenize(self, span: Span) -> Tokens:
        """Make tokens of some of the texts."""

    @abstractmethod
    def compute(self, batch: TokenBatch) -> NDArray[Any]:
        """Compute sequences of this and other tasks: -> (B, …), a row a sequence."""

    @abstractmethod
    def add(self, span: Span, tokens: Tokens, outputs: NDArray[Any]) -> None:
        """Take the outputs of all sequences of a window."""

    @abstractmethod
    def answer(self) -> Answer:
        """Return what was asked for."""


class EmbedTask(Task[Embedded]):
    kind = "embed"

    def __init__(self, work: EmbedWork) -> None:
        """Check the work.

        Raises:
            CheckpointError: the prompt leaves no room for a text, or the model's documents have fields.
            TypeError: a text is no string.
        """
        encoder = work.encoder
        if work.role == "document" and encoder.fields:
            encoder.check_searchable()  # which refuses single texts for documents
        self.work, self.model, self.priority = work, encoder, work.priority
        self.prompt, self.estimates = _prepared(work)
        self.skip = self.prompt.skip
        count, width = len(work.texts), encoder.width("query") if work.role == "query" else encoder.dimension
        self._vectors = np.empty((count, width), np.float32)
        self._tokens = np.empty(count, np.int64)
        self._truncated, self._empty, self._unknown = (np.empty(count, np.bool_) for _ in range(3))

    def tokenize(self, span: Span) -> Tokens:
        return _tokenized(self.work, self.prompt, span)

    def compute(self, batch: TokenBatch) -> NDArray[Any]:
        return self.work.encoder.pooled(batch, skip=self.skip)

    def add(self, span: Span, tokens: Tokens, outputs: NDArray[Any]) -> None:
        encoder, there = self.work.encoder, slice(span.start, span.stop)
        window = encoder.finish(outputs, tokens.of)
        is_query = self.work.role == "query"
        self._vectors[there] = encoder.as_queries(window.embeddings) if is_query else window.embeddings
        self._tokens[there] = tokens.of.tokens
        self._truncated[there], self._empty[there] = window.truncated, window.empty
        self._unknown[there] = window.unknown

    def answer(self) -> Embedded:
        return Embedded(self._vectors, self._tokens, self._truncated, self._empty, self._unknown)


class ScoreTask(Task[Scored]):
    kind = "score"
    padded = False  # as `CrossEncoder` cuts its batches

    def __init__(self, work: ScoreWork) -> None:
        """Check the work.

        Raises:
            CheckpointError: the model has several labels and none was chosen.
            TypeError: a text is no string.
            ValueError: there are not as many queries as texts.
        """
        work.model.check_single()
        sizes = text_bytes(work.texts)
        queries = text_bytes(work.queries)
        if len(queries) != len(sizes):
            raise ValueError(f"{len(queries)} queries and {len(sizes)} texts; there must be as many of each")
        self.work, self.model, self.priority = work, work.model, work.priority
        tokenizer = work.model.folder.tokenizer
        self.estimates = estimated_tokens(
            sizes + queries, around=tokenizer.pair.num_special, most=tokenizer.max_length
        )
        self._scores = np.empty(len(sizes), np.float32)
        self._tokens = np.empty(len(sizes), np.int64)
        self._truncated = np.empty(len(sizes), np.bool_)

    def tokenize(self, span: Span) -> Tokens:
        there = slice(span.start, span.stop)
        return Tokens(*self.work.model.tokenize(self.work.queries[there], self.work.texts[there]))

    def compute(self, batch: TokenBatch) -> NDArray[Any]:
        return self.work.model.batch_logits(batch)

    def add(self, span: Span, tokens: Tokens, outputs: NDArray[Any]) -> None:
        model, there = self.work.model, slice(span.start, span.stop)
        counts: PairCounts = tokens.of
        model.counts += counts
        self._scores[there] = model.log_odds_of(outputs) if self.work.raw else model.scores_of(outputs)
        self._tokens[there], self._truncated[there] = tokens.batch.lengths, tokens.batch.truncated

    def answer(self) -> Scored:
        return Scored(self._scores, self._tokens, self._truncated)


class TokenVectorsTask(Task[TokensOfTexts]):
    kind = "token_vectors"

    def __init__(self, work: TokenVectorsWork) -> None:
        """Check the work.

        Raises:
            CheckpointError: the prompt leaves no room for a text, or the model is a static one.
            RecordError: the vectors would be more than MOST_TOKEN_VECTOR_BYTES.
            TypeError: a text is no string.
        """
        folder = work.encoder.folder
        if folder.static:
            raise CheckpointError(
                f"{folder.path}: a static model gives its tokens no vectors in context. Use a transformer model"
            )
        self.work, self.model, self.priority = work, work.encoder, work.priority
        self.prompt, self.estimates = _prepared(work)
        wanted = int(self.estimates.sum()) * folder.config.hidden_size * 4
        if wanted > MOST_TOKEN_VECTOR_BYTES:
            raise RecordError(
                f"the vectors of all tokens of these {len(work.texts):,} texts are about {wanted / 2**20:,.0f} MiB; an answer has "
                f"{MOST_TOKEN_VECTOR_BYTES // 2**20} MiB at most. Send fewer texts at a time"
            )
        self._vectors: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)] * len(work.texts)
        self._tokens = np.empty(len(work.texts), np.int64)
        self._truncated = np.empty(len(work.texts), np.bool_)

    def tokenize(self, span: Span) -> Tokens:
        return _tokenized(self.work, self.prompt, span)

    def compute(self, batch: TokenBatch) -> NDArray[Any]:
        vectors = np.ascontiguousarray(self.work.encoder.token_vectors(batch), dtype=np.float32)
        rows = np.empty(len(batch), dtype=np.object_)  # (B,) arrays (T, D) of different lengths
        for row, part in enumerate(np.split(vectors, np.cumsum(batch.lengths)[:-1])):
            rows[row] = part.copy()  # no answer holds on to the batch that others are in
        return rows

    def add(self, span: Span, tokens: Tokens, outputs: NDArray[Any]) -> None:
        window: TokenizedWindow = tokens.of
        texts = np.split(outputs, window.starts[1:])
        joined = [parts[0] if len(parts) == 1 else np.concatenate(list(parts)) for parts in texts]
        for vectors in joined:
            vectors.flags.writeable = False
        self._vectors[span.start : span.stop] = [joined[row] for row in window.rows.tolist()]
        self._tokens[span.start : span.stop] = window.tokens
        self._truncated[span.start : span.stop] = window.truncated

    def answer(self) -> TokensOfTexts:
        return TokensOfTexts(self._vectors, self._tokens, self._truncated)


def _prepared(work: EmbedWork | TokenVectorsWork) -> tuple[Prompt, NDArray[np.int64]]:
    """Return what stands before each text, and an estimate of the tokens of each: (N,)."""
    encoder: Encoder = work.encoder
    text = work.prompt
    if text is None and work.role is not None:
        text = encoder.role_prompt(work.role)
    prompt = encoder.read_prompt(text)
    estimates = estimated_tokens(
        text_bytes(work.texts),
        around=encoder.tokenizer.single.num_special + prompt.num_tokens,
        most=None if work.on_truncate == "chunk" else encoder.tokenizer.max_length,
    )
    return prompt, estimates


def _tokenized(work: EmbedWork | TokenVectorsWork, prompt: Prompt, span: Span) -> Tokens:
    texts = work.texts[span.start : span.stop]
    try:
        window = work.encoder.tokenize(texts, prompt, on_truncate=work.on_truncate)
    except TextRefusedError as exc:  # its row is the window's
        raise TextRefusedError(exc.message, span.start + exc.row) from exc
    return Tokens(window.batch, window)
