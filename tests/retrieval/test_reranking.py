"""Reranking hits: the new order, the rest below, and time budgets told by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.records import Hit
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.reranking import blend, parse_budget, rerank_hits


class ByNumber(Reranker):
    """A reranker that reads the score off the text's last word, taking `seconds` a text on its own clock."""

    name = "by number"
    weight = 1.0

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.now = seconds, 0.0
        self.calls: list[int] = []

    def score(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls.append(len(texts))
        self.now += self.seconds * len(texts)
        return np.array([float(text.split()[-1]) for text in texts], dtype=np.float32)

    def clock(self) -> float:
        return self.now


def hits_of(numbers: Sequence[float]) -> list[Hit]:
    """Hits whose text says their score to be, first-stage scores falling from 0.9."""
    return [
        Hit(f"d{i}", 0.9 - i / 1000, f"text {number}", "title", scores={"dense": 0.9 - i / 1000})
        for i, number in enumerate(numbers)
    ]


def test_hits_are_ordered_by_the_new_score_and_keep_the_old() -> None:
    found = rerank_hits(ByNumber(), "q", hits_of([1, 3, 2]))
    assert [hit.doc_id for hit in found.hits] == ["d1", "d2", "d0"]
    assert found.hits[0].score == 3
    assert found.hits[0].scores == {"dense": pytest.approx(0.899), "rerank": 3}
    assert found.depth == 3


def test_title_stands_before_the_text() -> None:
    seen: list[str] = []

    class Recording(ByNumber):
        def score(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            seen.extend(texts)
            return super().score(query, texts)

    rerank_hits(Recording(), "q", hits_of([1]))
    assert seen == ["title text 1"]


def test_ties_keep_their_order() -> None:
    found = rerank_hits(ByNumber(), "q", hits_of([1, 1, 2, 1]))
    assert [hit.doc_id for hit in found.hits] == ["d2", "d0", "d1", "d3"]


def test_hits_beyond_the_candidates_follow_each_one_below_the_other() -> None:
    """Two are scored 1 and 2; the others follow at 1 - 1 and 1 - 2."""
    found = rerank_hits(ByNumber(), "q", hits_of([1, 2, 9, 8]), candidates=2)
    assert [(hit.doc_id, hit.score) for hit in found.hits] == [("d1", 2), ("d0", 1), ("d2", 0), ("d3", -1)]
    assert "rerank" not in found.hits[2].scores
    assert found.depth == 2


@given(numbers=st.lists(st.integers(-9, 9), max_size=50), candidates=st.integers(1, 60))
def test_nothing_is_dropped_and_scores_never_rise(numbers: list[int], candidates: int) -> None:
    hits = hits_of(numbers)
    found = rerank_hits(ByNumber(), "q", hits, candidates=candidates)
    assert sorted(hit.doc_id for hit in found.hits) == sorted(hit.doc_id for hit in hits)
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert found.depth == min(candidates, len(hits))


def test_no_hits_stay_no_hits() -> None:
    reranker = ByNumber()
    assert rerank_hits(reranker, "q", []).hits == []
    assert rerank_hits(reranker, "q", [], budget_seconds=1.0, clock=reranker.clock).depth == 0
    assert reranker.calls == []


@pytest.mark.parametrize(
    ("budget", "depth"),
    [(0.001, 4), (0.079, 4), (0.081, 8), (0.161, 16), (0.321, 32), (0.481, 48), (10.0, 50)],
)
def test_budget_ends_at_the_last_chunk_that_fits(budget: float, depth: int) -> None:
    """10 ms a text in chunks of 4, 4, 8, 16, 16 and 2, equally long texts: 8 texts take 80 ms, 16 take 160 ms."""
    reranker = ByNumber(0.01)
    hits = hits_of([1.5] * 50)
    found = rerank_hits(reranker, "q", hits, budget_seconds=budget, clock=reranker.clock)
    assert found.depth == depth
    assert len(found.hits) == 50
    assert reranker.now <= max(budget, 0.04)


def test_long_texts_are_expected_to_take_longer() -> None:
    """Four short texts take 40 ms; the next four are 100 times as long, so that 1 s would not do."""
    reranker = ByNumber(0.01)
    hits = hits_of([1.5] * 4) + [Hit(f"l{i}", 0.1, "word " * 400 + "1.5") for i in range(4)]
    assert rerank_hits(reranker, "q", hits, budget_seconds=1.0, clock=reranker.clock).depth == 4


def test_ranking_under_a_budget_is_that_of_as_many_candidates() -> None:
    numbers = [float(n) for n in np.random.default_rng(0).permutation(50)]
    reranker = ByNumber(0.01)
    limited = rerank_hits(reranker, "q", hits_of(numbers), budget_seconds=0.17, clock=reranker.clock)
    assert limited == rerank_hits(ByNumber(), "q", hits_of(numbers), candidates=limited.depth)
    assert limited.depth == 16


def test_scores_that_cannot_be_ranked_are_refused() -> None:
    class Broken(Reranker):
        name = "broken"
        weight = 1.0

        def __init__(self, scores: list[float]) -> None:
            self.scores = scores

        def score(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            return np.array(self.scores, dtype=np.float32)

    with pytest.raises(ValueError, match=r"scores of shape \(1,\) for 2 texts"):
        rerank_hits(Broken([1.0]), "q", hits_of([1, 2]))
    with pytest.raises(ValueError, match="1 of the reranker's 2 scores are not finite"):
        rerank_hits(Broken([1.0, float("nan")]), "q", hits_of([1, 2]))
    with pytest.raises(ValueError, match="budget_seconds is 0; it must be above 0"):
        rerank_hits(ByNumber(), "q", [], budget_seconds=0)


@pytest.mark.parametrize(("text", "seconds"), [("200ms", 0.2), ("1.5s", 1.5), ("2", 2.0), (" .5 s", 0.5)])
def test_budgets_are_read_with_their_units(text: str, seconds: float) -> None:
    assert parse_budget(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "fast", "0ms", "-1s", "1m", "ms"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time budget; wanted one such as 200ms or 1\.5s"):
        parse_budget(text)


def test_blending_two_stages_by_hand() -> None:
    """.9, .8, .7 and 2, 4, 0: scaled 1, 1/2, 0 and 1/2, 1, 0."""
    scores = np.array([2, 4, 0], dtype=np.float32)
    np.testing.assert_allclose(blend([0.9, 0.8, 0.7], scores, 0.5), [0.75, 0.75, 0])
    np.testing.assert_allclose(blend([0.9, 0.8, 0.7], scores, 0.25), [0.875, 0.625, 0])
    np.testing.assert_array_equal(blend([0.9, 0.8, 0.7], scores, 1), scores)
    with pytest.raises(ValueError, match=r"the reranker's weight is -0\.1; it must be from 0"):
        blend([0.9], scores[:1], -0.1)


def test_the_reranker_says_its_weight_and_hits_keep_both_scores() -> None:
    class Unsure(ByNumber):
        weight = 0.25

    found = rerank_hits(Unsure(), "q", hits_of([1, 3, 2]), candidates=2)
    assert [hit.doc_id for hit in found.hits] == ["d0", "d1", "d2"]
    assert [hit.score for hit in found.hits] == pytest.approx([0.75, 0.25, -0.75])
    assert found.hits[0].scores == {"dense": 0.9, "rerank": 1}
    assert rerank_hits(Unsure(), "q", hits_of([1, 3]), weight=1.0).hits[0].doc_id == "d1"
