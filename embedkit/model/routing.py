"""What the routers of an encoder did in one forward pass: a log that losses and reports are made from.

Routers write to the log of the `recording` that they run in, and to none outside of one. They keep references only: what a module
computes is the same with and without a log, as recomputing its activations asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor

RECURSION = "recursion"  # the name of a recursion's router


@dataclass(frozen=True)
class Choices:
    """One router's choice of k out of E experts, or depths, for each of M tokens.

    Shapes:
        logits: (M, E), with the graph; chosen: (M, k) long
        kept: (M, k) bool, False where an expert was full; None where none was
        rows: (M,) the tokens that these are; None: all
    """

    router: str
    logits: Tensor
    chosen: Tensor
    kept: Tensor | None = None
    rows: Tensor | None = None


@dataclass(frozen=True)
class Selection:
    """Which of M tokens one recursion took, by expert choice.

    Shapes:
        logits: (M,), with the graph; selected: (M,) bool; rows: (M,) the tokens that these are; None: all
    """

    logits: Tensor
    selected: Tensor
    rows: Tensor | None = None


@dataclass
class RoutingLog:
    """The choices of all routers in a forward pass over N tokens of B sequences.

    Of these the first `real_tokens` and `real_sequences` count, where they are given: the rest filled up a batch. `step_lengths` are,
    for each recursion by a router, the tokens that it took of each sequence.

    Shapes:
        depths: (N,) long, the recursions that each token took; None without recursion by a router
    """

    real_tokens: int | None = None
    real_sequences: int | None = None
    choices: list[Choices] = field(default_factory=list)
    selections: list[Selection] = field(default_factory=list)
    step_lengths: list[list[int]] = field(default_factory=list)
    depths: Tensor | None = None
    rows: Tensor | None = None  # the tokens that are being computed; None: all

    def choose(self, router: str, logits: Tensor, chosen: Tensor, kept: Tensor | None = None) -> None:
        """Note a router's choices for the tokens that are being computed."""
        self.choices.append(Choices(router, logits, chosen, kept, self.rows))

    def select(self, logits: Tensor, selected: Tensor) -> None:
        """Note which of the tokens that are being computed go on."""
        self.selections.append(Selection(logits, selected, self.rows))

    def counted_choices(self) -> Iterator[Choices]:
        """Yield the choices without the tokens that only filled up."""
        for each in self.choices:
            real = self._counted(each.rows)
            kept = None if each.kept is None else each.kept[real]
            yield Choices(each.router, each.logits[real], each.chosen[real], kept)

    def counted_selections(self) -> Iterator[Selection]:
        """Yield the selections without the tokens that only filled up."""
        for each in self.selections:
            real = self._counted(each.rows)
            yield Selection(each.logits[real], each.selected[real])

    def counted_depths(self) -> Tensor | None:
        """Return how deep each token went, without those that only filled up."""
        return None if self.depths is None else self.depths[: self.real_tokens]

    def counted_lengths(self) -> list[list[int]]:
        """Return the tokens of each sequence that each recursion took, without a sequence that only filled up."""
        return [lengths[: self.real_sequences] for lengths in self.step_lengths]

    def _counted(self, rows: Tensor | None) -> Tensor | slice:
        if rows is None or self.real_tokens is None:
            return slice(None) if rows is not None else slice(self.real_tokens)
        return rows < self.real_tokens


_LOG: ContextVar[RoutingLog | None] = ContextVar("routing log", default=None)


@contextmanager
def recording() -> Iterator[RoutingLog]:
    """Within it, forward passes write to the log that it gives; use one for each pass."""
    log = RoutingLog()
    token = _LOG.set(log)
    try:
        yield log
    finally:
        _LOG.reset(token)


def current_log() -> RoutingLog | None:
    """Return the log that routers write to now."""
    return _LOG.get()
