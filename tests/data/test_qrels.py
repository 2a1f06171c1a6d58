from __future__ import annotations

import pytest

from embedkit.data.qrels import UnknownIds, find_unknown, name_some
from embedkit.errors import EvaluationError

QRELS = {"q1": {"d1": 1, "d2": 0}, "q2": {"d3": 2, "d4": 1}}


def test_unknown_ids_are_counted_and_named() -> None:
    unknown = find_unknown(QRELS, query_ids=["q1"], doc_ids={"d1": 0, "d4": 1})
    assert unknown == UnknownIds(("q2",), ("d3",))  # d2 is judged 0: nothing is lost with it
    assert unknown.notes() == (
        "1 judged queries are unknown and count as 0: 'q2'",
        "1 judged documents are not in the collection and cannot be found: 'd3'",
    )
    assert find_unknown(QRELS, query_ids=["q1", "q2"], doc_ids=["d1", "d3", "d4"]).notes() == ()


def test_nothing_known_is_an_error_and_no_zero() -> None:
    with pytest.raises(
        EvaluationError, match=r"none of the 2 judged queries is known: 'q1', 'q2'; known are 1"
    ):
        find_unknown(QRELS, query_ids=["x"], doc_ids=["d1"])
    with pytest.raises(
        EvaluationError,
        match=r"none of the 3 judged relevant documents is known: 'd1', 'd3', 'd4'; known are 1 such as 'doc1'",
    ):
        find_unknown(QRELS, query_ids=["q1"], doc_ids=["doc1"])
    with pytest.raises(EvaluationError, match=r"known are 0 such as none"):
        find_unknown(QRELS, query_ids=["q1"], doc_ids=[])


def test_names_are_cut_after_a_few() -> None:
    assert name_some(["a", "b"], most=2) == "'a', 'b'"
    assert name_some(["a", "b", "c", "d"], most=2) == "'a', 'b' and 2 more"
