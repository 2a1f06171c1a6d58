"""CSV and TSV as spreadsheets and other programs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from embedkit.data.reading import read_documents
from embedkit.data.records import Document, ReadOptions
from embedkit.data.separated import separated_rows
from embedkit.errors import RecordError


def rows(content: str, form: Literal["csv", "tsv"] = "csv", **how: Any) -> list[tuple[int, dict[str, str]]]:
    lines = enumerate(content.split("\n"), 1)
    return [
        (number, dict(row)) for number, row in separated_rows(lines, "f", form, max_field_chars=999, **how)
    ]


@pytest.mark.parametrize(
    "content",
    [
        "id,text\n1,hello",
        "id;text\n1;hello",
        "id\ttext\n1\thello",
        "id|text\n1|hello",
        "sep=;\nid;text\n1;hello",
        '"id";"text"\n"1";"hello"',
        '"id","text"\n1,hello',
        "id,text,,\n1,hello,,",
        "id,text\n1,hello,,",
        "\n\nid,text\n\n1,hello\n,\n,\n",
    ],
)
def test_one_table_in_the_hands_of_many_programs(content: str) -> None:
    assert [row for _, row in rows(content)] == [{"id": "1", "text": "hello"}]


def test_rows_know_their_lines_also_behind_a_word_of_excel() -> None:
    assert rows('sep=;\nid;text\n1;"two\nlines"\n2;b') == [
        (3, {"id": "1", "text": "two\nlines"}),
        (5, {"id": "2", "text": "b"}),
    ]


def test_a_comma_in_the_header_is_what_separates() -> None:
    assert rows("id,text;more\n1,a") == [(2, {"id": "1", "text;more": "a"})]
    assert rows('"a;b",text\n1,x') == [(2, {"a;b": "1", "text": "x"})]
    assert rows("text\none, two", delimiter=";") == [(2, {"text": "one, two"})]
    assert rows("id,text\n1,a", delimiter="\\t") == [(2, {"id,text": "1,a"})]
    assert rows("a:b\n1:2", "tsv", delimiter=":") == [(2, {"a": "1", "b": "2"})]
    assert (
        rows('a\tb\n"1\t2', "tsv", delimiter="tab")
        == rows('a\tb\n"1\t2', "tsv")
        == [(2, {"a": '"1', "b": "2"})]
    )


def test_without_a_header_columns_are_numbered() -> None:
    assert rows("7\ta text\n8\tanother", "tsv", header=False) == [
        (1, {"1": "7", "2": "a text"}),
        (2, {"1": "8", "2": "another"}),
    ]


def test_one_unnamed_column_may_hold_something() -> None:
    """As the row numbers that pandas writes first."""
    assert rows(",text\n0,a\n1,b") == [(2, {"": "0", "text": "a"}), (3, {"": "1", "text": "b"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text\n1,a,b", r"f:2: 3 columns where the header has 2 \(id, text\)\. .*or pass --delimiter"),
        ("id,text\n1", "f:2: 1 columns where the header has 2"),
        ("id,id\n1,a", "f:1: a column name occurs twice in the header: id, id.*--no-header where"),
        ("a,,\n1,2,3", "f:2: column 3 has no name in the header and holds '3'"),
        ('id,text\n1,"a', r"f:2: not CSV \(unexpected end of data\)"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(content: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        rows(content)


def documents(path: Path, content: str, **how: Any) -> list[Document]:
    path.write_text(content, encoding="utf-8")
    return list(read_documents([str(path)], ReadOptions(**how)))


def test_documents_without_a_header_are_ids_and_texts_or_what_is_named(tmp_path: Path) -> None:
    tsv = tmp_path / "a.tsv"
    (one,) = documents(tsv, "7\ta text\n", header=False)
    assert (one.doc_id, one.text, dict(one.metadata)) == ("7", "a text", {})
    (alone,) = documents(tsv, "a text\n", header=False)
    assert (alone.doc_id, alone.text) == (f"{tsv.as_posix()}:1", "a text")
    (named,) = documents(tsv, "7\thttp\ta text\n", header=False, text_field="3", id_field="1")
    assert (named.doc_id, named.text, dict(named.metadata)) == ("7", "a text", {"2": "http"})
    with pytest.raises(
        RecordError, match=r"a\.tsv:1: 3 columns without a header; .*--text-field 3, and .*--id-field 1"
    ):
        documents(tsv, "7\thttp\ta text\n", header=False)
    with pytest.raises(RecordError, match=r"missing key 'text'; keys here: 7, a text.*or --no-header where"):
        documents(tsv, "7\ta text\n8\tb\n")


def test_contents_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "contents": "as Pyserini has it"}\n', encoding="utf-8")
    assert [document.text for document in read_documents([str(path)])] == ["as Pyserini has it"]


@pytest.mark.parametrize("delimiter", ["", "ab", '"', "\n"])
def test_a_delimiter_is_one_sign(delimiter: str) -> None:
    with pytest.raises(ValueError, match="it must be one sign, or tab"):
        ReadOptions(delimiter=delimiter)
    assert ReadOptions(delimiter="tab").delimiter == "tab"
