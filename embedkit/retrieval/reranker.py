"""What a reranker is: anything that scores texts against a query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from embedkit.retrieval.strength import PROBABILITIES
from embedkit.types import Float32


class Reranker(Protocol):
    """Scores (query, text) pairs jointly; a higher score is better.

    A class that inherits from this one has to give its `name`, its `weight` and `score`. `name` is what people are told;
    `weight` is the part of its score in the order of hits, from 0 to 1, beside the first stage's
    (`embedkit.retrieval.reranking.blend`).
    """

    name: str
    weight: float

    def score(self, query: str, texts: Sequence[str]) -> Float32:
        """Return one score for each text, as (K,) float32."""
        ...

    def strength(self, score: float) -> float:
        """Say how strong a hit with this score is, from 0, what chance gives, to 1 (`embedkit.retrieval.strength`).

        Without a method of its own a reranker's scores are taken for probabilities.
        """
        return PROBABILITIES.strength(score)

    def score_groups(self, groups: Iterable[tuple[str, Sequence[str]]]) -> Iterator[Float32]:
        """Score a stream of queries, each with its texts: yields (K,) float32 for each, in order, also where K = 0."""
        for query, texts in groups:
            yield self.score(query, texts)
