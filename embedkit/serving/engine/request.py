"""A request in the engine: its task in windows, of which few are there as tokens at a time."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.serving.engine.spans import Span
from embedkit.serving.engine.tasks import Task, Tokens


@dataclass(eq=False)
class QueuedRequest:
    """What the engine knows of a request; its lock guards this.

    `next` is the first window that no tokenizer has, `windows` are those before it that were not computed to the end. `begun`
    requests were in a batch. `future` is None when they have their answer, an error, or a client who has gone.
    """

    task: Task[Any]
    future: Future[Any] | None
    spans: list[Span]
    arrived: float
    next: int = 0
    windows: set[Window] = field(default_factory=set)
    begun: bool = False

    @property
    def ended(self) -> bool:
        return self.future is None


@dataclass(eq=False)
class Window:
    """Some texts of a request. `held` are its tokens that count as waiting: estimated ones, then real ones not yet computed.

    Shapes:
        rows: (C',) the sequences that no batch has taken; outputs: (C, …), None before the first batch
    """

    request: QueuedRequest
    span: Span
    held: int = 0
    ready: float = 0.0
    tokens: Tokens | None = None
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    missing: int = 0  # sequences without outputs
    outputs: NDArray[Any] | None = None

    @property
    def task(self) -> Task[Any]:
        return self.request.task

    def fill(self, tokens: Tokens) -> None:
        """Take the tokens, with which this may be computed."""
        self.tokens = tokens
        self.missing = len(tokens.batch)
        self.rows = np.arange(self.missing)

    @property
    def num_tokens(self) -> int:
        """The tokens of the sequences that no batch has taken."""
        return 0 if self.tokens is None else int(self.tokens.batch.lengths[self.rows].sum())

    def store(self, rows: NDArray[np.int64], computed: NDArray[Any]) -> None:
        """Put the outputs of some sequences where they belong."""
        if self.outputs is None:
            self.outputs = np.empty((self.missing, *computed.shape[1:]), dtype=computed.dtype)
        self.outputs[rows] = computed
        self.missing -= len(rows)
