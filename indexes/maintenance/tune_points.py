"""Settings of an approximate search as they are measured, and the choice among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..storage.codes import RowArray

# More effort than this recall buys nothing.
ENOUGH = 0.9995


@dataclass(frozen=True)
class TunePoint:
    """One setting, measured. `queries_per_second` is of one batch with all processors."""

    knobs: Mapping[str, int]
    recall: float
    queries_per_second: float

    def as_json(self) -> dict[str, Any]:  # Any: whatever JSON holds
        return {**vars(self), "knobs": dict(self.knobs)}


@dataclass(frozen=True)
class TuneReport:
    """The points measured so far; the last report names the one chosen, and whether it reaches the target."""

    curve: tuple[TunePoint, ...]
    chosen: TunePoint | None = None
    reached: bool = False


def choose(curve: Sequence[TunePoint], target: float) -> tuple[TunePoint, bool]:
    """Return the fastest setting that reaches a recall, or where none does the one of the highest; and whether it does."""
    reaching = [point for point in curve if point.recall >= target]
    if reaching:
        return max(reaching, key=lambda point: point.queries_per_second), True
    return max(curve, key=lambda point: point.recall), False


def recall_of(rows: RowArray, truth: RowArray) -> float:
    """Return the share of the true rows (Q, k) that are among those found (Q, any)."""
    hits = [len(np.intersect1d(a, b)) for a, b in zip(rows, truth, strict=True)]
    return float(np.mean(hits) / truth.shape[1])


def without_own(rows: RowArray, own: RowArray | None, k: int) -> RowArray:
    """Take each query's own row out and keep the first k of the rest, as (Q, k)."""
    if own is None:
        return rows[:, :k]
    order = np.argsort(rows == own[:, None], axis=1, kind="stable")  # its own row goes to the end
    return np.take_along_axis(rows, order, axis=1)[:, :k]
