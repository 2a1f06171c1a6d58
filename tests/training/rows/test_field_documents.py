"""Training rows whose second texts are documents with fields: objects or columns, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.errors import RecordError
from embedkit.training.rows.columns import FIELD_KINDS
from embedkit.training.rows.examples import Examples
from embedkit.training.rows.reading import read_examples

FIELDS = ("title", "text")
Row = dict[str, Any]  # Any: JSON values


def read(tmp_path: Path, rows: list[Row], fields: tuple[str, ...] = FIELDS, **columns: str) -> Examples:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_examples(str(path), kinds=FIELD_KINDS, fields=fields, columns=columns)  # type: ignore[arg-type] # roles


def documents_of(examples: Examples) -> list[list[str | None]]:
    assert examples.documents is not None
    return [[None if n < 0 else examples.texts[n] for n in row] for row in examples.documents.tolist()]


def test_objects_of_fields(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"query": "q", "positive": {"title": "a", "text": "b"}, "negatives": [{"text": " c "}, {"title": "a"}]},
        {"query": "r", "positive": {"title": "", "text": ["x", "y"]}, "negatives": [{"text": "c", "title": None}]},
    ]  # fmt: skip
    examples = read(tmp_path, rows)
    assert (examples.kind, examples.fields) == ("triplets", FIELDS)
    assert documents_of(examples) == [["a", "b"], [None, "c"], ["a", None], [None, "x, y"]]
    assert examples.second is not None
    assert examples.negatives is not None
    assert examples.second.tolist() == [0, 3]
    assert examples.negatives.tolist() == [[1, 2], [1, -1]]
    assert "4 documents: title in 2, text in 3" in examples.described
    # Documents count behind the texts, so that no batch of distinct texts takes one for the other.
    count = len(examples.texts)
    assert examples.text_columns.tolist() == [[0, count, count + 1, count + 2], [4, count + 3, count + 1, -1]]


def test_several_positives_are_a_row_each(tmp_path: Path) -> None:
    rows: list[Row] = [{"query": "q", "positives": [{"title": "a", "text": "b"}, {"text": "c"}]}]
    examples = read(tmp_path, rows)
    assert examples.first.tolist() == [0, 0]
    assert documents_of(examples) == [["a", "b"], [None, "c"]]


def test_columns_of_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,title,text,year\nq,a,b,2019\nr,,c,2020\n", encoding="utf-8")
    examples = read_examples(str(path), kinds=FIELD_KINDS, fields=("title", "text", "year"))
    assert examples.kind == "pairs"
    assert documents_of(examples) == [["a", "b", "2019"], [None, "c", "2020"]]
    assert examples.described.startswith(
        "first = 'question', second = 'title + text + year', with 2 documents"
    )


def test_a_title_may_be_the_query_where_it_is_said_so(tmp_path: Path) -> None:
    rows: list[Row] = [{"title": "q", "positive": {"title": "a", "text": "b"}}]
    with pytest.raises(RecordError, match="'positive' holds an object, and there are columns for fields too"):
        read(tmp_path, rows)
    examples = read(tmp_path, rows, first="title", second="positive")
    assert documents_of(examples) == [["a", "b"]]


def test_a_retrieval_set_gives_the_fields_of_its_documents(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    corpus: list[Row] = [
        {"_id": "d1", "title": "a", "text": "b", "metadata": {}, "author": ["x", "y"]},
        {"_id": "d2", "title": "", "text": "c"},
    ]
    for name, rows in (("corpus", corpus), ("queries", [{"_id": "q1", "text": "q"}])):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    judged = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"
    (folder / "qrels" / "train.tsv").write_text(judged, encoding="utf-8")
    examples = read_examples(str(folder), kinds=FIELD_KINDS, fields=("title", "text", "author"))
    assert examples.kind == "triplets"
    assert documents_of(examples) == [["a", "b", "x, y"], [None, "c", None]]


def test_the_fingerprint_knows_fields_from_texts(tmp_path: Path) -> None:
    rows: list[Row] = [{"query": "q", "positive": {"title": "a", "text": "b"}}]
    swapped: list[Row] = [{"query": "q", "positive": {"text": "a", "title": "b"}}]
    prints = {read(tmp_path, some).fingerprint for some in (rows, swapped)}
    prints.add(read(tmp_path, swapped, ("text", "title")).fingerprint)
    assert len(prints) == 3


def test_taken_rows_keep_their_documents(tmp_path: Path) -> None:
    rows: list[Row] = [{"query": f"q{n}", "positive": {"title": f"a{n}", "text": "b"}} for n in range(4)]
    examples = read(tmp_path, rows)
    some = examples.take(np.array([3, 1]))
    assert some.second is not None
    assert [documents_of(some)[n][0] for n in some.second.tolist()] == ["a3", "a1"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"title": "", "text": " "}, "rows.jsonl:2: the document has none of the fields title, text"),
        ({}, "rows.jsonl:2: the document has none of the fields title, text"),
        ({"text": "b", "abstract": "c"}, "'abstract', which is none of the fields title, text"),
        ({"text": {"en": "b"}}, "field 'text' is {'en': 'b'}; it must be a text, or a list of texts"),
        ({"text": True}, "field 'text' is True; it must be a text"),
        ("plain", "'positive' is 'plain'; it must be an object of the fields title, text"),
        (None, "'positive' is None; it must be an object of the fields"),
    ],
)
def test_documents_that_make_no_sense_are_refused_with_their_place(
    document: Any, message: str, tmp_path: Path
) -> None:
    rows: list[Row] = [
        {"query": "q", "positive": {"title": "a", "text": "b"}},
        {"query": "r", "positive": document},
    ]
    with pytest.raises(RecordError, match=message):
        read(tmp_path, rows)


def test_a_field_that_no_document_has_is_refused(tmp_path: Path) -> None:
    rows: list[Row] = [{"query": "q", "positive": {"title": "a", "text": "b"}}]
    with pytest.raises(
        RecordError, match="no document has a field 'code'; an expert for it would learn nothing"
    ):
        read(tmp_path, rows, (*FIELDS, "code"))


def test_rows_that_make_no_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"needs first \+ second"):
        read(tmp_path, [{"title": "a", "text": "b", "label": "c"}])
