"""A model small enough to enumerate: what may follow depends on the last token alone."""

from __future__ import annotations

import torch
from torch import Tensor

END = 0


class Chain:
    """A `Stepper` over a table of logits (V, V), a row for each last token."""

    def __init__(self, table: Tensor, prompts: list[list[int]]) -> None:
        self._table = table.float()
        self.last = torch.tensor([prompt[-1] for prompt in prompts])
        self.logits = self._table[self.last]

    def advance(self, tokens: Tensor, parents: Tensor | None = None) -> Tensor:
        if parents is not None:
            assert int(parents.max()) < len(self.last)
        self.last = tokens
        self.logits = self._table[self.last]
        return self.logits
