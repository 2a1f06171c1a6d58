"""When a query's own document counts: told by texts, never by ids alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from embedkit.data.records import Document
from embedkit.evaluation.identical_ids import IGNORED, of_run, queries_are_documents

QUERIES = {"1": "Cats  sleep", "2": "dogs run", "x": "horses"}
SAME = {"1": Document("1", "cats"), "2": Document("2", "run", "dogs")}


@pytest.mark.parametrize(
    ("documents", "qrels", "expected"),
    [
        ({"1": Document("1", "Cats sleep"), "2": Document("2", "run", "dogs")}, {"1": {"2": 1}}, True),
        ({"1": Document("1", "Cats sleep")}, {"1": {"1": 0, "2": 1}}, True),
        ({"1": Document("1", "Cats sleep")}, {"1": {"1": 1}}, False),  # it is its own answer
        (
            {"1": Document("1", "a man"), "2": Document("2", "a piano")},
            {},
            False,
        ),  # numberings that meet by chance
        ({"1": Document("1", "Cats sleep"), "2": Document("2", "a piano")}, {}, False),  # no more than half
        ({}, {}, False),
    ],
)
def test_queries_are_documents_where_most_texts_of_shared_ids_are_the_same(
    documents: Mapping[str, Document], qrels: Mapping[str, Mapping[str, int]], expected: bool
) -> None:
    assert queries_are_documents(QUERIES, qrels, documents) is expected


def test_of_a_run_hits_are_left_out_where_that_is_wanted_and_else_named() -> None:
    run = {"1": {"1": 3.0, "2": 2.0}, "2": {"1": 2.0, "2": 1.0}, "3": {"2": 1.0}}
    qrels = {"1": {"2": 1}, "2": {"1": 1}, "3": {"2": 1}}
    kept, counts, (note,) = of_run(qrels, run, wanted=True)
    assert kept == {"1": {"2": 2.0}, "2": {"1": 2.0}, "3": {"2": 1.0}}
    assert counts == {IGNORED: 2}
    assert note == "hits with the id of their query do not count (--ignore-identical-ids)"
    same, counts, (note,) = of_run(qrels, run, wanted=None)
    assert (same, counts) == (run, {})
    assert note.startswith("1 of 3 queries have the document of their own id as first hit. ")
    assert of_run(qrels, run, wanted=False) == (run, {}, ())
    assert of_run({"1": {"1": 1}}, run, wanted=None) == (run, {}, ())  # judged relevant: no self-hit
