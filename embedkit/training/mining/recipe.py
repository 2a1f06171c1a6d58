"""What counts as a hard negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from embedkit.training.engine.recipes import check_below_one, check_least


@dataclass(frozen=True, kw_only=True)
class MiningRecipe:
    """What counts as a hard negative.

    Of the ranks `first_rank` to `last_rank` (from 1, known positives not counted) up to `num_negatives` are taken: the nearest (`pick`
    top) or any (`random`). A candidate is left out whose score exceeds the positive's less `margin`, or the positive's times
    (1 - `relative_margin`); None does not compare. The measure is the cross-encoder's score or the cosine.
    """

    num_negatives: int = 5
    first_rank: int = 1
    last_rank: int = 50
    margin: float | None = 0.0
    relative_margin: float | None = None
    pick: Literal["top", "random"] = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, 1, "num_negatives")
        if not 1 <= self.first_rank <= self.last_rank:
            raise ValueError(
                f"ranks are {self.first_rank} to {self.last_rank}; they must start at 1 or later and not end before they start"
            )
        check_below_one(self, "relative_margin")

    @property
    def compares(self) -> bool:
        return self.margin is not None or self.relative_margin is not None

    def limit(self, positive: float) -> float:
        """Return the highest score that a negative may have."""
        limits = [np.inf]
        if self.margin is not None:
            limits.append(positive - self.margin)
        if self.relative_margin is not None:
            limits.append(positive - self.relative_margin * abs(positive))
        return float(min(limits))
