"""Training rows of every kind become lists of candidates with their relevance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import RecordError
from embedkit.training.reranker.ranked_lists import RankedLists
from embedkit.training.reranker.reading import read_ranked_lists


def read(path: Path, *rows: object, **options: object) -> RankedLists:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_ranked_lists([str(path)], **options)  # type: ignore[arg-type] # options of that function


def content(lists: RankedLists) -> list[tuple[str, dict[str, float]]]:
    """Each query with the relevance of its texts."""
    found = []
    for query, own, values in zip(lists.queries, lists.candidates, lists.relevance, strict=True):
        texts = {
            lists.texts[number]: float(value)
            for number, value in zip(own, values, strict=True)
            if number >= 0
        }
        found.append((lists.texts[query], texts))
    return found


def test_positive_and_negatives(tmp_path: Path) -> None:
    lists = read(
        tmp_path / "a.jsonl",
        {"query": "q", "positive": "p", "negatives": ["m", "n"]},
        {"query": "r", "positive": "m", "negatives": ["p"]},
    )
    assert content(lists) == [("q", {"p": 1, "m": 0, "n": 0}), ("r", {"m": 1, "p": 0})]
    assert (lists.meaning, lists.num_candidates, len(lists.texts)) == ("binary", 5, 5)


def test_labelled_texts_of_one_query_stand_together(tmp_path: Path) -> None:
    rows = [
        {"query": q, "text": t, "label": label}
        for q, t, label in (("q", "a", 1), ("r", "b", 0), ("q", "c", 0))
    ]
    lists = read(tmp_path / "a.jsonl", *rows)
    assert content(lists) == [("q", {"a": 1, "c": 0}), ("r", {"b": 0})]
    assert lists.meaning == "binary"


def test_words_as_labels_are_classes_and_numbers_if_asked_for(tmp_path: Path) -> None:
    rows = [
        {"sentence1": "a", "sentence2": "b", "label": "yes"},
        {"sentence1": "a", "sentence2": "c", "label": "no"},
    ]
    lists = read(tmp_path / "a.jsonl", *rows)
    assert (lists.meaning, lists.classes) == ("class", ("no", "yes"))
    assert content(lists) == [("a", {"b": 1}), ("a", {"c": 0})]
    binary = [row | {"label": i} for i, row in enumerate(rows)]
    assert read(tmp_path / "b.jsonl", *binary, classes=True).classes == ("0", "1")


def test_a_teachers_scores_and_margins(tmp_path: Path) -> None:
    lists = read(tmp_path / "a.jsonl", {"query": "q", "texts": ["a", "b"], "scores": [7.5, -1]})
    assert (content(lists), lists.meaning) == ([("q", {"a": 7.5, "b": -1})], "teacher")
    margins = read(
        tmp_path / "b.jsonl", {"query": "q", "positive": "a", "negatives": ["b", "c"], "margins": [2.0, 0.5]}
    )
    assert (content(margins), margins.meaning) == ([("q", {"a": 0, "b": -2, "c": -0.5})], "teacher")


def test_graded_labels_of_lists(tmp_path: Path) -> None:
    lists = read(tmp_path / "a.jsonl", {"query": "q", "texts": ["a", "b", "c"], "labels": [0, 3, 1]})
    assert (content(lists), lists.meaning) == ([("q", {"a": 0, "b": 3, "c": 1})], "graded")


def test_retrieval_set_with_judgements(tmp_path: Path) -> None:
    (tmp_path / "set" / "qrels").mkdir(parents=True)
    (tmp_path / "set" / "corpus.jsonl").write_text(
        '{"_id": "d", "title": "T", "text": "x"}\n{"_id": "e", "text": "y"}\n'
    )
    (tmp_path / "set" / "queries.jsonl").write_text('{"_id": "q", "text": "one"}\n')
    (tmp_path / "set" / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\nq\te\t0\n")
    assert content(read_ranked_lists([str(tmp_path / "set")])) == [("one", {"T x": 1, "y": 0})]


def test_several_files_share_their_texts(tmp_path: Path) -> None:
    for name, rows in (
        ("a", [{"query": "q", "positive": "x", "negatives": ["y"]}]),
        ("b", [{"query": "r", "positive": "y"}]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lists = read_ranked_lists([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    assert content(lists) == [("q", {"x": 1, "y": 0}), ("r", {"y": 1})]
    assert len(lists.texts) == 4
    (tmp_path / "c.jsonl").write_text('{"query": "q", "texts": ["a"], "scores": [1.5]}\n')
    with pytest.raises(
        RecordError, match=r"c.jsonl: its rows are a teacher's scores; those of .*a.jsonl are relevant or not"
    ):
        read_ranked_lists([str(tmp_path / "a.jsonl"), str(tmp_path / "c.jsonl")])


def test_split_keeps_queries_apart_and_is_the_same_every_time(tmp_path: Path) -> None:
    lists = read(tmp_path / "a.jsonl", *({"query": f"q{i % 10}", "positive": f"p{i}"} for i in range(40)))
    train, held_out = lists.split(0.2, most=100, seed=1)
    assert len(np.unique(held_out.queries)) == 2
    assert (len(train), len(held_out)) == (32, 8)
    assert not set(train.queries) & set(held_out.queries)
    np.testing.assert_array_equal(held_out.queries, lists.split(0.2, most=100, seed=1)[1].queries)
    assert len(np.unique(lists.split(0.9, most=3, seed=1)[1].queries)) == 3
    one = read(tmp_path / "b.jsonl", {"query": "q", "positive": "p"})
    with pytest.raises(RecordError, match="1 distinct query in the training data; at least 2 are needed"):
        one.split(0.1, most=10, seed=0)


def test_fingerprint_tells_other_relevance(tmp_path: Path) -> None:
    first = read(tmp_path / "a.jsonl", {"query": "q", "texts": ["a", "b"], "scores": [1, 2]})
    assert (
        first.fingerprint
        == read(tmp_path / "b.jsonl", {"query": "q", "texts": ["a", "b"], "scores": [1, 2]}).fingerprint
    )
    assert (
        first.fingerprint
        != read(tmp_path / "c.jsonl", {"query": "q", "texts": ["a", "b"], "scores": [2, 1]}).fingerprint
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"query": "q", "texts": [], "scores": []},
            "a.jsonl:1: wanted a string 'query', a list of strings 'texts'",
        ),
        (
            {"query": "q", "texts": ["a"], "scores": "x"},
            "a list of numbers 'scores'; keys here: query, texts, scores",
        ),
        (
            {"query": "q", "texts": ["a"], "labels": [1, 2]},
            "a.jsonl:1: 1 texts and 2 labels; there must be one",
        ),
        (
            {"query": "q", "texts": ["a"], "scores": [float("nan")]},
            "'scores' holds a number that is not finite",
        ),
        ({"query": "q", "answer": ""}, "a.jsonl:1: 'answer' is empty; it must be a text"),
    ],
)
def test_rows_that_cannot_be_read_are_named(row: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        read(tmp_path / "a.jsonl", row)


def test_plain_text_and_no_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text\n")
    with pytest.raises(RecordError, match="plain text has no columns; a reranker needs rows such as"):
        read_ranked_lists([str(tmp_path / "a.txt")])
    with pytest.raises(RecordError, match="no training data was given"):
        read_ranked_lists([])
