"""What the loop reports while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One optimizer step was made; `step` counts from 1, `loss` is of the step's batch, before it."""

    step: int
    loss: float
    values: Mapping[str, float]
    lr: float
    grad_norm: float
    tokens: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class Evaluated:
    """The held-out data was measured after `step` steps."""

    step: int
    values: Mapping[str, float]
    best: bool


@dataclass(frozen=True)
class Saved:
    """A state was written after `step` steps; `finished` says that the model itself was."""

    step: int
    path: str
    finished: bool = False


@dataclass(frozen=True)
class Resumed:
    """The run goes on after `step` steps, or `ended` with them: then the model alone is written again."""

    step: int
    ended: bool = False


Report = Step | Evaluated | Saved | Resumed


def scalars(report: Report) -> tuple[str, Mapping[str, float]]:
    """Return the numbers of a report that make curves, and the group they belong to."""
    match report:
        case Step():
            rates = {"loss": report.loss, "lr": report.lr, "grad_norm": report.grad_norm}
            return "train", {**rates, **report.values}
        case Evaluated():
            return "held_out", report.values
    return "", {}
