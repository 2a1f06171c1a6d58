from __future__ import annotations

import math

import pytest

from embedkit.errors import EvaluationError
from embedkit.evaluation.metrics import Metric
from embedkit.evaluation.retrieval import evaluate_retrieval

QRELS = {"q1": {"d1": 1}, "q2": {"d2": 1}, "q3": {"d3": 0}, "q4": {"d1": 1}}
RUN = {
    "q1": {"d1": 2.0, "d2": 1.0},
    "q2": {"d1": 2.0, "d2": 1.0},
    "q3": {"d3": 1.0},
    "q4": {},
    "q9": {"d1": 1.0},
}


def test_values_means_and_what_did_not_count() -> None:
    """Reciprocal ranks 1, 1/2, 0 (nothing relevant), 0 (no hits): mean 0.375."""
    found = evaluate_retrieval(QRELS, RUN, [Metric("mrr"), Metric("p", 1)])
    assert found.per_query["mrr"] == {"q1": 1.0, "q2": 0.5, "q3": 0.0, "q4": 0.0}
    assert found.means == {"mrr": 0.375, "p@1": 0.25}
    assert (found.num_queries, found.num_relevant_retrieved) == (4, 2)
    assert found.notes() == (
        "1 of 4 judged queries have no hits in the run and count as 0: 'q4'",
        "1 of 4 judged queries have no relevant document and count as 0: 'q3'",
        "1 queries of the run are not judged and do not count: 'q9'",
    )


def test_a_query_missing_from_the_run_counts_as_one_without_hits() -> None:
    run = {"q1": RUN["q1"]}
    found = evaluate_retrieval(QRELS, run, [Metric("mrr")])
    assert found.without_hits == ("q2", "q3", "q4")
    assert found.means["mrr"] == 0.25


def test_a_run_of_another_collection_is_remarked_on() -> None:
    found = evaluate_retrieval({"q": {"doc1": 1}}, {"q": {"1": 1.0}})
    assert found.notes() == (
        "no relevant document is anywhere in the run: check that both name documents of one collection",
    )


def test_a_whole_run_has_no_notes() -> None:
    assert evaluate_retrieval({"q": {"d": 1}}, {"q": {"d": 1.0}}).notes() == ()


def test_what_would_be_a_silent_zero_is_an_error() -> None:
    with pytest.raises(
        EvaluationError, match=r"none of the 1 judged queries \('q'\) has hits .* 1 queries \('x'\)"
    ):
        evaluate_retrieval({"q": {"d": 1}}, {"x": {"d": 1.0}})
    with pytest.raises(EvaluationError, match=r"which holds 0 queries \(none\)"):
        evaluate_retrieval({"q": {"d": 1}}, {})
    with pytest.raises(EvaluationError, match=r"none of the 1 judged queries has a relevant document"):
        evaluate_retrieval({"q": {"d": 0}}, {"q": {"d": 1.0}})
    with pytest.raises(EvaluationError, match=r"query 'q': the score of document 'e' is nan"):
        evaluate_retrieval({"q": {"d": 1}}, {"q": {"d": 1.0, "e": math.nan}})
    with pytest.raises(ValueError, match=r"no metric was given"):
        evaluate_retrieval({"q": {"d": 1}}, {"q": {"d": 1.0}}, [])
