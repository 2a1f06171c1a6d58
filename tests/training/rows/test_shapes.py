"""Training rows as other projects publish them, and scores that are votes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from embedkit.data.records import ReadOptions
from embedkit.errors import RecordError
from embedkit.training.rows.columns import parse_columns
from embedkit.training.rows.examples import Examples
from embedkit.training.rows.reading import read_examples


def examples(path: Path, rows: Sequence[Any], **how: Any) -> Examples:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_examples(str(path), **how)


def told(found: Examples) -> list[tuple[str, ...]]:
    """Return the texts of each row, in the order of its columns."""
    return [tuple(found.texts[at] for at in row if at >= 0) for row in found.text_columns.tolist()]


def test_lists_of_positives_make_a_row_each_with_all_negatives(tmp_path: Path) -> None:
    rows = [{"query": "q", "pos": ["a", "b"], "neg": ["x", "y"]}, {"query": "r", "pos": ["c"], "neg": []}]
    found = examples(tmp_path / "a.jsonl", rows)
    assert (found.kind, told(found)) == (
        "triplets",
        [("q", "a", "x", "y"), ("q", "b", "x", "y"), ("r", "c")],
    )
    assert found.described == "first = 'query', second = 'pos', negatives = 'neg'"
    alone = examples(tmp_path / "b.jsonl", [{"query": "q", "pos": ["a", "b"]}])
    assert (alone.kind, told(alone)) == ("pairs", [("q", "a"), ("q", "b")])


def test_passages_with_titles(tmp_path: Path) -> None:
    passage = {"docid": "7", "title": "T", "text": "a"}
    rows = [
        {
            "query_id": "1",
            "query": "q",
            "positive_passages": [passage],
            "negative_passages": [{"docid": "8", "text": "x"}, {"docid": "9", "title": "", "text": "y"}],
        }
    ]
    assert told(examples(tmp_path / "a.jsonl", rows)) == [("q", "T a", "x", "y")]


def test_sets_are_pairs_with_their_first_text(tmp_path: Path) -> None:
    found = examples(tmp_path / "a.jsonl", [{"set": ["a", "b", "c"]}, {"set": ["d", "e"]}])
    assert (found.kind, told(found)) == ("pairs", [("a", "b"), ("a", "c"), ("d", "e")])


def test_a_list_of_rows_and_texts_called_contents(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps([{"query": "q", "pos": ["a"]}, {"query": "r", "pos": ["b"]}]), encoding="utf-8"
    )
    assert told(read_examples(str(path))) == [("q", "a"), ("r", "b")]
    assert examples(tmp_path / "b.jsonl", [{"id": "1", "contents": "a"}]).kind == "texts"


@pytest.mark.parametrize(
    ("content", "kind", "rows"),
    [
        ("a text\nanother\n", "texts", [("a text",), ("another",)]),
        ("q\ta\nr\tb\n", "pairs", [("q", "a"), ("r", "b")]),
        ("q\ta\tx\nr\tb\ty\n", "triplets", [("q", "a", "x"), ("r", "b", "y")]),
        ("q\ta\t0.5\nr\tb\t1\n", "scored", [("q", "a"), ("r", "b")]),
    ],
)
def test_columns_without_a_header_by_their_number(
    content: str, kind: str, rows: list[tuple[str, ...]], tmp_path: Path
) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(content, encoding="utf-8")
    found = read_examples(str(path), read=ReadOptions(header=False))
    assert (found.kind, told(found)) == (kind, rows)


def test_a_header_that_is_missing_or_too_wide_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("1\tq\ta\tx\n2\tr\tb\ty\n", encoding="utf-8")
    read = ReadOptions(header=False)
    with pytest.raises(RecordError, match=r"a\.tsv:1: 4 columns without a header; say .*--column first=1"):
        read_examples(str(path), read=read)
    given = parse_columns(["first=2", "second=3", "negatives=4"])
    assert told(read_examples(str(path), columns=given, read=read)) == [("q", "a", "x"), ("r", "b", "y")]
    with pytest.raises(
        RecordError, match=r"columns here: 1, q, a, x; .*or pass --no-header where the first line"
    ):
        read_examples(str(path))
    semicolons = tmp_path / "b.csv"
    semicolons.write_text("query;answer\nq;a\n", encoding="utf-8")
    assert told(read_examples(str(semicolons))) == [("q", "a")]
    assert told(read_examples(str(semicolons), read=ReadOptions(delimiter=";"))) == [("q", "a")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "pos": []}, "a.jsonl:1: 'pos' is an empty list; it must hold a text"),
        ({"query": "q", "pos": [7]}, "a.jsonl:1: 'pos' is int 7; it must be a text"),
        (
            {"query": "q", "positive_passages": [{"docid": "1"}]},
            "'positive_passages' is dict .*it must be a text",
        ),
        ({"set": ["a"]}, r"a.jsonl:1: 'set' is \['a'\]; it must be a list of at least two texts"),
        ({"set": "a"}, "'set' is 'a'; it must be a list"),
    ],
)
def test_shapes_that_are_wrong_are_refused_with_their_place(row: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        examples(tmp_path / "a.jsonl", [row])


def scored(first: str, second: str, scores: Sequence[float]) -> list[dict[str, Any]]:
    return [{first: f"q{i}", second: f"a{i}", "score": score} for i, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("first", "second", "scores", "message"),
    [
        (
            "question",
            "answer",
            [12, 0, 143],
            "'score' holds whole numbers from 0 to 143; are these votes, or how alike",
        ),
        ("question", "answer", [0, 3, 1], "'score' holds whole numbers from 0 to 3; are these votes"),
        ("title", "body", [-2, 5], "whole numbers from -2 to 5; .* how alike 'title' and 'body' are"),
        ("sentence1", "sentence2", [0.5, 87.5], "'score' holds from 0.5 to 87.5; are these votes"),
    ],
)
def test_a_score_that_looks_like_votes_is_asked_about(
    first: str, second: str, scores: list[float], message: str, tmp_path: Path
) -> None:
    path, rows = tmp_path / "a.jsonl", scored(first, second, scores)
    with pytest.raises(
        RecordError, match=message + ".*--column score=, to train on the scores --column score=score"
    ):
        examples(path, rows)
    assert examples(path, rows, columns=parse_columns(["score="])).kind == "pairs"
    assert examples(path, rows, columns=parse_columns(["score=score"])).kind == "scored"
    assert examples(path, rows, kinds=("scored",)).kind == "scored"  # nothing else was wanted


@pytest.mark.parametrize(
    ("first", "second", "scores"),
    [
        ("sentence1", "sentence2", [0, 5, 3]),
        ("sentence1", "sentence2", [0.2, 1]),
        ("sentence1", "sentence2", [-1, 1, 0]),
        ("question", "answer", [0.2, 0.9]),
        ("question", "answer", [0, 1]),
    ],
)
def test_a_score_of_a_usual_scale_is_one(
    first: str, second: str, scores: list[float], tmp_path: Path
) -> None:
    assert examples(tmp_path / "a.jsonl", scored(first, second, scores)).kind == "scored"
