from __future__ import annotations

import json
import math

import pytest

from embedkit.errors import EvaluationError
from embedkit.evaluation.compare import TopHit, add_texts, compare_runs, compare_values, wanted_documents
from embedkit.evaluation.metrics import Metric

A = {"q1": 0.5, "q2": 1.0, "q3": 0.25, "q4": 0.1 + 0.2}
B = {"q1": 1.0, "q2": 0.25, "q3": 0.5, "q4": 0.3}


def test_a_comparison_by_hand() -> None:
    """Differences 0.5, -0.75, 0.25, 0 (rounding): the sum is 0, which every sign pattern reaches."""
    found = compare_values(A, B, metric="mrr")
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert [change.query_id for change in found.changes] == ["q2", "q4", "q3", "q1"]
    assert [change.query_id for change in found.worse(5)] == ["q2"]
    assert [change.query_id for change in found.better(1)] == ["q1"]
    assert found.better(0) == found.worse(0) == ()
    assert found.difference == pytest.approx(0.0)
    assert (found.test.p_value, found.test.exact) == (1.0, True)
    assert found.interval.low < 0 < found.interval.high


def test_the_other_way_round_is_the_opposite() -> None:
    there, back = compare_values(A, B, metric="mrr"), compare_values(B, A, metric="mrr")
    assert there.difference == -back.difference
    assert (there.wins, there.losses) == (back.losses, back.wins)
    assert there.test == back.test


def test_a_clear_gain_is_significant() -> None:
    a = {f"q{number}": 0.25 for number in range(30)}
    b = dict.fromkeys(a, 0.5)
    found = compare_values(a, b, metric="map")
    assert found.test.p_value < 0.001
    assert (found.interval.low, found.interval.high) == (0.25, 0.25)


def test_other_queries_on_one_side_are_an_error() -> None:
    with pytest.raises(
        EvaluationError,
        match=r"mrr: 1 queries have a value for 'old' alone \('x'\), 0 for 'new' alone \(none\)",
    ):
        compare_values({"q": 1.0, "x": 1.0}, {"q": 1.0}, metric="mrr", names=("old", "new"))
    with pytest.raises(EvaluationError, match=r"there is no query that both sides answered"):
        compare_values({}, {}, metric="mrr")
    with pytest.raises(EvaluationError, match=r"difference 1 of 1 is nan"):
        compare_values({"q": 1.0}, {"q": math.nan}, metric="mrr")


QRELS = {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}, "q3": {"d3": 1}}
RUN_A = {"q1": {"d2": 2.0, "d1": 1.0}, "q2": {"d2": 2.0, "d9": 1.0}, "q3": {"d3": 1.0}}
RUN_B = {"q1": {"d1": 2.0, "d2": 1.0}, "q2": {"d9": 2.0, "d8": 1.5, "d2": 1.0}, "q3": {"d3": 1.0}}


def test_the_queries_that_changed_carry_both_top_hits() -> None:
    found = compare_runs(QRELS, RUN_A, RUN_B, Metric("mrr", 10), hits=2)
    assert [(change.query_id, change.a, change.b) for change in found.changes] == [
        ("q2", 1.0, 1 / 3),
        ("q3", 1.0, 1.0),
        ("q1", 0.5, 1.0),
    ]
    (worse,) = found.worse(9)
    assert worse.hits_a == (TopHit("d2", 2.0, 2), TopHit("d9", 1.0, None))
    assert worse.hits_b == (TopHit("d9", 2.0, None), TopHit("d8", 1.5, None))
    assert found.changes[1].hits_a == ()
    assert wanted_documents(found) == {"d1", "d2", "d8", "d9"}


def test_texts_are_added_where_they_are_known() -> None:
    found = compare_runs(QRELS, RUN_A, RUN_B, Metric("mrr", 10), hits=1)
    found = add_texts(found, queries={"q2": "what?"}, documents={"d2": "this"})
    (worse,) = found.worse(1)
    assert (worse.text, worse.hits_a[0].text, worse.hits_b[0].text) == ("what?", "this", "")


def test_a_query_missing_from_one_run_is_0_there() -> None:
    found = compare_runs(QRELS, RUN_A, {"q1": RUN_B["q1"]}, Metric("success", 1))
    assert [found.mean_a, found.mean_b] == pytest.approx([2 / 3, 1 / 3])
    assert found.worse(1)[0].hits_b == ()


def test_the_run_at_fault_is_named() -> None:
    with pytest.raises(EvaluationError, match=r"B: none of the 3 judged queries .* has hits in the run"):
        compare_runs(QRELS, RUN_A, {"x": {"d1": 1.0}}, Metric("mrr"))


def test_a_comparison_becomes_json() -> None:
    found = json.loads(json.dumps(compare_runs(QRELS, RUN_A, RUN_B, Metric("mrr", 10)).as_dict()))
    assert (found["wins"], found["ties"], found["losses"], found["queries"]) == (1, 1, 1, 3)
    assert found["changes"][0]["hits_a"][0] == {"doc_id": "d2", "score": 2.0, "level": 2, "text": ""}
