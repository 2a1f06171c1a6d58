"""Penalties of heads and aspects that are alike, in the steps of contrastive training: a share with each part of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from embedkit.training.engine.diversity import DiversityPenalty, attached
from embedkit.training.engine.ranks import Ranks
from embedkit.training.engine.sharding import BatchPart


class Penalized:
    """The penalties of one step, of each part of its batch; `values` are this device's shares of their means."""

    def __init__(
        self, penalties: Mapping[str, DiversityPenalty | None], parts: Sequence[BatchPart], ranks: Ranks
    ) -> None:
        self._penalties = {name: each for name, each in penalties.items() if each is not None}
        self._ranks, self.values = ranks, dict[str, Tensor | float]()
        if self._penalties:
            own = {name: float(sum(_rows(name, part) for part in parts)) for name in self._penalties}
            self._totals = ranks.total(own)

    def clear(self) -> None:
        for penalty in self._penalties.values():
            penalty.clear()

    def attach(self, vectors: Tensor, part: BatchPart) -> Tensor:
        """Let a part's penalties come along with the gradients of its vectors."""
        for name, penalty in self._penalties.items():
            share = penalty.take(_rows(name, part)) / self._totals[name]
            if torch.is_grad_enabled():  # the first of the two passes of cached gradients has none
                self.values[name] = self.values.get(name, 0.0) + share.detach()
                # Gradients are averaged over the devices; these are each device's own part of a sum.
                vectors = attached(vectors, penalty.weight * self._ranks.world * share)
        return vectors


def _rows(name: str, part: BatchPart) -> int:
    """Return what a penalty is a mean over: the tokens of a part, or its texts."""
    return int(part.tokens.lengths.sum()) if name == "head_diversity" else len(part.tokens)
