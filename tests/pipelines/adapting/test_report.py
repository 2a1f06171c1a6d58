"""The verdict on an adaptation: what speaks against a model that was trained, and against one that only got a map."""

from __future__ import annotations

import numpy as np
import pytest

from embedkit.pipelines.adapting.pairs import QueryPassage
from embedkit.pipelines.adapting.report import ModelStanding, Report, compare

PAIRS = [QueryPassage(f"query {i}", f"passage {i}", "crop", f"d{i}", f"d{i}") for i in range(30)]
SAMPLE = np.random.default_rng(0).normal(size=(48, 8)).astype(np.float32)


def standing(ndcg: float, *, sample: np.ndarray = SAMPLE, similarity: float = 0.8) -> ModelStanding:
    return ModelStanding(
        ranks=[1 if ndcg > 0.5 else 3] * len(PAIRS),
        ndcg=[ndcg] * len(PAIRS),
        sample=sample,
        sets={"stsb spearman": similarity},
    )


def report(after: ModelStanding, *, trained: bool) -> Report:
    return compare(PAIRS, standing(0.5), after, passages=30, mean_cosine=0.2, trained=trained)


@pytest.mark.parametrize(
    ("ndcg", "trained", "against"),
    [
        (1.0, True, ""),
        (0.5, True, "no better"),
        (0.2, True, "no better"),
        (1.0, False, ""),
        (0.5, False, ""),  # a map need not help queries that are their passages' own words
        (0.2, False, "find their passages worse"),
    ],
)
def test_training_has_to_help_and_a_map_not_to_harm(ndcg: float, trained: bool, against: str) -> None:
    found = report(standing(ndcg), trained=trained)
    assert found.keep == (not against)
    assert against in found.why[0]
    assert found.mean_cosine == 0.2


@pytest.mark.parametrize("trained", [False, True])
def test_other_texts_have_to_keep_their_order(trained: bool) -> None:
    shuffled = report(standing(1.0, sample=SAMPLE[::-1].copy()), trained=trained)
    assert not shuffled.keep
    assert "cosines of general texts" in shuffled.why[0]
    lost = report(standing(1.0, similarity=0.78), trained=trained)
    assert list(lost.why) == ["stsb spearman fell from 0.8000 to 0.7800"]
