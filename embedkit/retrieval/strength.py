"""How strong a hit is, whatever found it: 0 for what chance gives, 1 for what relevant documents typically have.

The numbers are measured (`benchmarks/noise.py`) on queries with judgements and on queries of other collections.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from embedkit.types import Float32

# Of the bound on what the best of N unrelated texts reaches: hides less than 1 % of what is relevant (docs/searching.md).
CHANCE = 0.9
# Relevant documents lie so many deviations above chance: the median, much the same in collections of all sizes.
TYPICAL_DEVIATIONS = 3.5
# No larger collection was measured, and beyond it the bound goes on growing.
MOST_TEXTS = 10_000


@dataclass(frozen=True)
class Scale:
    """The score that chance gives, and the one that relevant documents typically have."""

    chance: float
    typical: float

    def __post_init__(self) -> None:
        if not self.chance < self.typical:
            raise ValueError(
                f"chance gives {self.chance}; what is typical must be above it, not {self.typical}"
            )

    def strength(self, score: float) -> float:
        """Say where a score lies: 0 at chance or below, 1 at what is typical or above."""
        return min(1.0, max(0.0, self.place(score)))

    def place(self, score: float) -> float:
        """Say where a score lies between chance, 0, and what is typical, 1; also below and beyond these."""
        return (score - self.chance) / (self.typical - self.chance)


# Of BM25 as a share of what the query could reach, and of probabilities that a text is relevant.
TEXT_SHARES = Scale(0.12, 0.3)
PROBABILITIES = Scale(0.06, 0.4)


@dataclass(frozen=True)
class CosineNoise:
    """The cosines of unrelated texts by one model: their mean and standard deviation."""

    mean: float
    deviation: float

    def __post_init__(self) -> None:
        if not -1 <= self.mean <= 1 or not 0 < self.deviation <= 1:
            raise ValueError(
                f"mean {self.mean} of cosines must be from -1 to 1, and their deviation {self.deviation} above 0, 1 at most"
            )

    @classmethod
    def between(cls, queries: Float32, documents: Float32) -> Self:
        """Measure it on unit vectors of texts, (N, E) as queries and (N, E) as documents: each with all others, N at least 2."""
        return cls.of(queries @ documents.T)

    @classmethod
    def of(cls, scores: Float32) -> Self:
        """Measure it on the scores of texts as queries with the same texts as documents, (N, N): each with all others, N at least 2."""
        cosines = scores[~np.eye(len(scores), dtype=bool)]  # (N * (N - 1),)
        # Where all are alike, rounding may take the mean above 1, and there is no deviation.
        return cls(min(1.0, float(cosines.mean())), max(1e-6, float(cosines.std())))

    def scale(self, count: int) -> Scale:
        """Return what cosines mean among `count` texts: the more there are, the nearer comes the best of them by chance.

        The bound on the expected maximum of N normal variables is mean + deviation * sqrt(2 ln N).
        """
        most = math.sqrt(2 * math.log(min(max(count, 1), MOST_TEXTS)))
        chance = self.mean + CHANCE * most * self.deviation
        return Scale(chance, chance + TYPICAL_DEVIATIONS * self.deviation)


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """What measures the hits of one query: the scale of cosines (None: it was searched by words alone) and what BM25 could reach (0: nothing).

    `weights` are those of the cosine and of BM25's share of its limit in the score of a hybrid search.
    """

    cosines: Scale | None = None
    text_limit: float = 0.0
    weights: tuple[float, float] = (1.0, 1.0)

    def strength(self, scores: Mapping[str, float]) -> float:
        """Say how strong a hit with these scores is by what found it; what it lacks counts as 0.

        Of both, it is the weighted mean on a scale from chance by meaning, without a word, to what is typical of both. Worked example, equal
        weights: a cosine of .3 on a scale from .2 to .6 and BM25 2 of 10: .25 on one from .1 to .45, so .43.
        """
        return min(1.0, max(0.0, self.place(scores)))

    def place(self, scores: Mapping[str, float]) -> float:
        """Say where such a hit lies as `strength` does, but also below chance and beyond what is typical: so hits of several models are put in one order."""
        cosine, share = scores.get("dense", 0.0), self.share(scores)
        if self.cosines is None:
            return TEXT_SHARES.place(share)
        if not self.text_limit:
            return self.cosines.place(cosine)
        both = Scale(
            self._mean(self.cosines.chance, 0.0), self._mean(self.cosines.typical, TEXT_SHARES.typical)
        )
        return both.place(self._mean(cosine, share))

    def is_chance(self, scores: Mapping[str, float]) -> bool:
        """Say whether neither the cosine nor the words of a hit are more than chance gives."""
        near = self.cosines is not None and scores.get("dense", 0.0) > self.cosines.chance
        return not near and self.share(scores) <= TEXT_SHARES.chance

    def share(self, scores: Mapping[str, float]) -> float:
        """Return the part of what BM25 could reach that a hit has."""
        return scores.get("text", 0.0) / self.text_limit if self.text_limit else 0.0

    def _mean(self, by_meaning: float, by_words: float) -> float:
        return (self.weights[0] * by_meaning + self.weights[1] * by_words) / sum(self.weights)
