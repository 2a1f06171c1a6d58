"""What a kind of training brings to the loop: the module, the batches and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from embedkit.training.engine.ranks import Ranks
from embedkit.training.engine.run_folder import RunFolder


@dataclass(frozen=True)
class Shares:
    """What this rank's part of a step contributed; over all ranks they add up.

    `values` must hold "loss", already divided by the whole batch's count. `flops` counts forward and backward.
    """

    values: Mapping[str, Tensor | float]
    tokens: int
    flops: float = 0.0


@dataclass(frozen=True)
class HeldOut:
    """What held-out data gave: numbers to report, and the criterion by which weights are compared (lower is better)."""

    values: Mapping[str, float]
    criterion: float


class Journey(Protocol):
    """What a kind of training brings to the loop."""

    @property
    def module(self) -> nn.Module:
        """Everything that is trained; its state_dict is what states keep."""

    def manifest(self) -> Mapping[str, Any]:  # Any: whatever JSON holds
        """Say what decides the result, as JSON values: {"recipe": …, "data": …}. A resumed run must agree with it."""

    def backward(self, module: nn.Module, step: int, ranks: Ranks) -> Shares:
        """Run this rank's part of optimizer step `step` (from 0), leaving the gradients of the batch's mean loss.

        `module` is `self.module`, wrapped where there are peers: its gradients are averaged over the ranks, so that the
        loss to differentiate is this rank's share × `ranks.world`. Which data a step takes must depend on `step` alone.
        """

    def evaluate(self, module: nn.Module, ranks: Ranks) -> HeldOut:
        """Measure on held-out data, the same on every rank."""

    def save(self, folder: RunFolder) -> None:
        """Write the finished model beside the run; called on rank 0 with the best weights in `self.module`."""
