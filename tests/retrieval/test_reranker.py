"""What a reranker has without writing it: streams of queries, one after another, and how strong a hit is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.strength import PROBABILITIES
from embedkit.types import Float32


class ByLength(Reranker):
    name = "by length"
    weight = 1.0

    def score(self, query: str, texts: Sequence[str]) -> Float32:
        return np.array([len(query) + len(text) for text in texts], np.float32)


def test_groups_are_scored_in_order_as_they_come_also_the_empty_ones() -> None:
    read: list[str] = []

    def groups() -> Iterator[tuple[str, list[str]]]:
        for query, texts in (("q", ["a", "bb"]), ("qq", []), ("q", ["ccc"])):
            read.append(query)
            yield query, texts

    found = ByLength().score_groups(groups())
    assert next(found).tolist() == [2, 3]
    assert read == ["q"]
    assert [scores.tolist() for scores in found] == [[], [4]]


def test_scores_are_taken_for_probabilities() -> None:
    middle = (PROBABILITIES.chance + PROBABILITIES.typical) / 2
    assert [ByLength().strength(score) for score in (0.0, middle, 1.0)] == pytest.approx([0, 0.5, 1])
