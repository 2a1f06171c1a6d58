"""What the methods of decoding work on, and what they return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Stepper(Protocol):
    """Sequences that grow token by token; `embedkit.model.decoding.Decoding` is one."""

    logits: Tensor  # (R, V), fp32

    def advance(self, tokens: Tensor, parents: Tensor | None = None) -> Tensor:
        """Add a token to each sequence, which goes on from what was sequence `parents[i]`; return the logits after it."""


@dataclass(frozen=True)
class Hypothesis:
    """An output as tokens, its prompt before it; `finished` says that it ended by itself, not at the limit."""

    tokens: tuple[int, ...]
    score: float
    finished: bool
