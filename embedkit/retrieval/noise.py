"""Which cosines mean nothing: what a model gives to texts that have nothing to do with each other, and hits no better than that."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from embedkit.data.records import Hit


@dataclass(frozen=True)
class CosineNoise:
    """The cosines of unrelated texts by one model: their mean and standard deviation."""

    mean: float
    deviation: float

    def __post_init__(self) -> None:
        if not -1 <= self.mean <= 1 or not 0 <= self.deviation <= 1:
            raise ValueError(
                f"mean {self.mean} and deviation {self.deviation} of cosines must be from -1 to 1 and from 0 to 1"
            )

    @property
    def low(self) -> float:
        """What nearly all pairs of texts have, 0 at least: in hybrid search it counts as nothing."""
        return max(0.0, self.mean - 2 * self.deviation)

    @property
    def floor(self) -> float:
        """What few unrelated pairs reach: a hit below it is none.

        With embedkit-small .23: of the relevant documents of SciFact, CACM, CISI, WikiQA and SQuAD 1 to 8 % are below it and none of
        the queries is left without a hit; of questions about other things 94 % find nothing among a dozen texts.
        """
        return self.mean + 2 * self.deviation

    def chance(self, count: int) -> float:
        """Return what the best of `count` unrelated texts reaches: above it a best hit is no accident.

        It is the bound on the expected maximum of `count` normal variables, mean + deviation * sqrt(2 ln count).
        """
        return self.mean + self.deviation * math.sqrt(2 * math.log(max(count, 1)))


def is_weak(hit: Hit, floor: float) -> bool:
    """Say whether a hit was found by meaning alone, with a cosine below the floor; what a reranker scored is its affair."""
    return not {"text", "rerank"} & hit.scores.keys() and hit.scores.get("dense", floor) < floor


def without_weak(hits: Iterable[Hit], floor: float) -> list[Hit]:
    """Leave out the hits whose cosine means nothing."""
    return [hit for hit in hits if not is_weak(hit, floor)]
