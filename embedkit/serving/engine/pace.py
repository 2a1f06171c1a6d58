"""How fast tokens are computed, lately."""

from __future__ import annotations

import math

# What was measured this many tokens ago counts 1/e of what is measured now: a few batches of a GPU, a few seconds of a CPU.
MEMORY_TOKENS = 2**17


class Pace:
    """Tokens a second while computing. Weighted by tokens: a hundred single queries do not say how fast a full batch is."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        kept = math.exp(-tokens / MEMORY_TOKENS)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + seconds

    @property
    def per_second(self) -> float | None:
        """None before anything was measured."""
        return self._tokens / self._seconds if self._seconds > 0 else None
