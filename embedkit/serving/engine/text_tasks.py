"""Texts for an index of another kind than one vector a text: how they are encoded together with those of other requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedkit.encoding.sparse_windows import SparseWindow
from embedkit.encoding.windows import TokenizedWindow, TokenWindow
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.retrieval.token_vectors import TokenVectors
from embedkit.serving.engine.spans import Span, estimated_tokens, text_bytes
from embedkit.serving.engine.tasks import Task, Tokens
from embedkit.serving.engine.work import Priority
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import TextRole

KindVectors = TokenVectors | SparseVectors
_ROLES: tuple[TextRole, ...] = ("query", "document")


class StepEncoder(Protocol):
    """What encodes texts in three steps: a `MultiVectorEncoder` or a `SparseEncoder`. Any: vectors and windows of its kind."""

    @property
    def token_budget(self) -> int: ...

    def max_length(self, role: TextRole) -> int: ...

    def tokenize(self, texts: Sequence[str], role: TextRole) -> TokenizedWindow: ...

    def sequence_vectors(self, batch: TokenBatch, role: TextRole) -> Any: ...

    def finish(self, computed: Any, window: TokenizedWindow, role: TextRole) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class TextsWork:
    """Texts to be encoded as an index does documents, or a search its queries; what is too long is cut.

    With `keep_all` empty and unknown queries have their vectors, too, as a reranker reads them.
    """

    encoder: StepEncoder
    texts: Sequence[str]
    role: TextRole
    keep_all: bool = False
    priority: Priority = "interactive"


@dataclass(frozen=True)
class EncodedTexts:
    """The vectors of N texts, of the encoder's kind; with the role "query" empty and unknown texts have none, unless all are kept.

    Shapes:
        tokens: (N,) int64, those that were read, special ones and prompts included
        truncated, empty, unknown: (N,) bool
    """

    vectors: KindVectors
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    unknown: NDArray[np.bool_]


class TextsTask(Task[EncodedTexts]):
    kind = "embed"

    def __init__(self, work: TextsWork) -> None:
        """Check the work.

        Raises:
            TypeError: a text is no string.
            ValueError: there are no texts.
        """
        sizes = text_bytes(work.texts)
        if not len(sizes):
            raise ValueError("no texts were given")
        self.work, self.model, self.priority = work, work.encoder, work.priority
        self.skip = _ROLES.index(work.role)  # no tokens: only what has the same is computed together
        self.estimates = estimated_tokens(sizes, around=0, most=work.encoder.max_length(work.role))
        self._windows: dict[int, TokenWindow | SparseWindow] = {}
        self._tokens = np.zeros(len(work.texts), np.int64)

    def tokenize(self, span: Span) -> Tokens:
        window = self.work.encoder.tokenize(self.work.texts[span.start : span.stop], self.work.role)
        return Tokens(window.batch, window)

    def compute(self, batch: TokenBatch) -> NDArray[Any]:
        vectors = self.work.encoder.sequence_vectors(batch, self.work.role)
        rows = np.empty(len(batch), dtype=np.object_)  # (B,) vectors of one sequence each
        for row in range(len(batch)):
            rows[row] = vectors.take(np.array([row]))
        return rows

    def add(self, span: Span, tokens: Tokens, outputs: NDArray[Any]) -> None:
        parts = outputs.tolist()
        computed = type(parts[0]).concatenate(parts)
        self._windows[span.start] = self.work.encoder.finish(computed, tokens.of, self.work.role)
        self._tokens[span.start : span.stop] = tokens.of.tokens

    def answer(self) -> EncodedTexts:
        windows = [self._windows[start] for start in sorted(self._windows)]
        parts: list[Any] = [window.vectors for window in windows]  # Any: all of one kind
        vectors: KindVectors = type(parts[0]).concatenate(parts)
        truncated, empty, unknown = (
            np.concatenate([getattr(window, name) for window in windows])
            for name in ("truncated", "empty", "unknown")
        )
        if self.work.role == "query" and not self.work.keep_all:
            vectors = vectors.where(~(empty | unknown))
        return EncodedTexts(vectors, self._tokens, truncated, empty, unknown)
