from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.qrels import ranking
from embedkit.errors import EvaluationError
from embedkit.evaluation.metrics import Metric, metric_value, parse_metric, standing

# d3 stands first, then d1, x, d2; d4 is relevant and not found.
JUDGEMENTS = {"d1": 1, "d2": 3, "d3": 0, "d4": 2, "d5": -1}
SCORES = {"d1": 0.8, "x": 0.7, "d2": 0.6, "d3": 0.9, "d5": 0.1}


def _value(text: str) -> float:
    return metric_value(parse_metric(text), standing(JUDGEMENTS, SCORES))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # found at ranks 2 (level 1) and 4 (level 3); ideal order 3, 2, 1
        ("ndcg", (1 / math.log2(3) + 3 / math.log2(5)) / (3 + 2 / math.log2(3) + 1 / 2)),
        ("ndcg@2", (1 / math.log2(3)) / (3 + 2 / math.log2(3))),
        ("ndcg_exp", (1 / math.log2(3) + 7 / math.log2(5)) / (7 + 3 / math.log2(3) + 1 / 2)),
        ("map", (1 / 2 + 2 / 4) / 3),
        ("map@3", (1 / 2) / 3),
        ("mrr", 1 / 2),
        ("mrr@1", 0.0),
        ("recall@4", 2 / 3),
        ("recall@3", 1 / 3),
        ("p@4", 2 / 4),
        ("p@100", 2 / 100),
        ("success@1", 0.0),
        ("success@2", 1.0),
    ],
)
def test_worked_example(metric: str, expected: float) -> None:
    assert _value(metric) == pytest.approx(expected, abs=1e-15)


def test_equal_scores_rank_the_greater_id_first_as_trec_eval() -> None:
    scores = {"a": 1.0, "c": 1.0, "b": 1.0, "z": 0.5}
    assert ranking(scores) == ["c", "b", "a", "z"]
    assert standing({"a": 1, "b": 2}, scores).ranks.tolist() == [2, 3]
    assert standing({"a": 1, "b": 2}, scores).levels.tolist() == [2, 1]


def test_scores_that_are_one_float32_are_equal() -> None:
    assert ranking({"a": 1.0 + 1e-9, "b": 1.0}) == ["b", "a"]


IDS = st.text("abc", min_size=1, max_size=2)
FEW_SCORES = st.sampled_from([0.0, 0.5, 0.5 + 1e-10, 1.0])


@given(st.dictionaries(IDS, st.integers(-1, 3)), st.dictionaries(IDS, FEW_SCORES))
def test_standing_equals_a_look_through_the_whole_ranking(
    judgements: dict[str, int], scores: dict[str, float]
) -> None:
    found = standing(judgements, scores)
    places = [
        (rank, judgements[doc_id])
        for rank, doc_id in enumerate(ranking(scores), 1)
        if judgements.get(doc_id, 0) > 0
    ]
    assert list(zip(found.ranks.tolist(), found.levels.tolist(), strict=True)) == places
    assert found.ideal.tolist() == sorted((level for level in judgements.values() if level > 0), reverse=True)


@given(st.dictionaries(IDS, st.integers(-1, 3)), st.dictionaries(IDS, FEW_SCORES), st.integers(1, 12))
def test_every_metric_lies_between_0_and_1(
    judgements: dict[str, int], scores: dict[str, float], k: int
) -> None:
    found = standing(judgements, scores)
    for name in ("ndcg", "ndcg_exp", "map", "mrr", "recall", "p", "success"):
        assert 0.0 <= metric_value(parse_metric(f"{name}@{k}"), found) <= 1.0 + 1e-12


@given(st.dictionaries(IDS, st.integers(1, 3), min_size=1))
def test_the_ideal_ranking_has_the_highest_ndcg_and_map(judgements: dict[str, int]) -> None:
    found = standing(judgements, {doc_id: float(level) for doc_id, level in judgements.items()})
    for name in ("ndcg", "ndcg@2", "ndcg_exp", "map"):
        assert metric_value(parse_metric(name), found) == pytest.approx(1.0)


def test_a_query_without_relevant_documents_is_0_as_in_trec_eval() -> None:
    assert metric_value(Metric("ndcg", 10), standing({"a": 0, "b": -1}, {"a": 1.0})) == 0.0


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("ndcg@10", Metric("ndcg", 10)),
        (" nDCG_exp@5 ", Metric("ndcg_exp", 5)),
        ("map", Metric("map")),
        ("AP@100", Metric("map", 100)),
        ("rr@10", Metric("mrr", 10)),
        ("precision@5", Metric("p", 5)),
        ("R@100", Metric("recall", 100)),
        ("success@1", Metric("success", 1)),
    ],
)
def test_names_of_metrics_are_understood(text: str, metric: Metric) -> None:
    assert parse_metric(text) == metric
    assert parse_metric(str(metric)) == metric


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ndgc@10", r"'ndgc@10': the name 'ndgc' is not known; did you mean 'ndcg'\?"),
        ("bleu", r"the name 'bleu' is not known; known are ndcg ndcg_exp map mrr recall p success"),
        ("ndcg@0", r"the cutoff '0' is not a whole number above 0; write ndcg@10"),
        ("p@", r"the cutoff '' is not a whole number"),
        ("map@1e3", r"the cutoff '1e3' is not"),
        ("recall", r"'recall' has no cutoff; write recall@10"),
    ],
)
def test_other_names_are_refused_with_what_is_known(text: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        parse_metric(text)


def test_a_metric_checks_itself() -> None:
    with pytest.raises(ValueError, match=r"p has no cutoff; it needs one, as in p@10"):
        Metric("p")
    with pytest.raises(ValueError, match=r"ndcg has the cutoff 0; it must be at least 1"):
        Metric("ndcg", 0)
    with pytest.raises(ValueError, match=r"metric name is 'gain'; it must be one of ndcg"):
        Metric("gain")  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1e39])
def test_a_score_that_no_ranking_can_be_told_from_is_refused(score: float) -> None:
    with pytest.raises(
        EvaluationError, match=r"the score of document 'b' is (nan|-?inf|1e\+39); a score must be"
    ):
        standing({"b": 1}, {"a": 1.0, "b": score})


def test_an_exponential_gain_beyond_float64_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"ndcg_exp@3: a document is judged 2000; .* up to level 52"):
        metric_value(Metric("ndcg_exp", 3), standing({"a": 2000}, {"a": 1.0}))
