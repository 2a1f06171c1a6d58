"""JSON lists of rows, however they are laid out; nothing that follows an error is lost or made up."""

from __future__ import annotations

import gzip
import io
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data import json_arrays
from embedkit.data.json_arrays import array_rows
from embedkit.data.one_file import open_rows
from embedkit.data.paths import expand_inputs
from embedkit.data.places import Place
from embedkit.data.reading import DocumentReader, read_documents
from embedkit.data.records import Hit
from embedkit.errors import RecordError
from embedkit.training.rows.files import read_rows

ROWS = [{"text": "a [b] {c}", "n": 1}, {"text": "é\n]", "n": -2.5}, {"text": "", "n": None}]


def rows(content: str, limit: int = 2**20) -> list[tuple[int, Any]]:
    return list(array_rows(io.BytesIO(content.encode()), "f.json", limit))


@pytest.mark.parametrize("size", [1, 7, 2**20])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_read_row_by_row_whatever_comes_at_once(
    size: int, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_arrays, "_CHUNK_BYTES", size)
    assert [row for _, row in rows(json.dumps(ROWS, indent=indent, ensure_ascii=False))] == ROWS


values = st.floats(allow_nan=False) | st.text() | st.lists(st.integers(), max_size=4)


@given(st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=6))
def test_what_json_writes_is_read(some: list[dict[str, Any]]) -> None:
    assert [row for _, row in rows(json.dumps(some))] == some
    assert [row for _, row in rows("\n".join(map(json.dumps, some)))] == some  # rows one after another


def test_rows_know_the_line_that_they_begin_on() -> None:
    assert rows('[\n {"text": "a"},\n\n {"text":\n "b"}, "c"]\n') == [
        (2, {"text": "a"}),
        (4, {"text": "b"}),
        (5, {"text": "c"}),
    ]
    assert rows("[]") == rows("") == rows(" \n") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '[{"text": "a"} {"text": "b"}]',
            r"f\.json:1: not JSON \(a comma or the end of the list is missing\)",
        ),
        ('[{"text": "a"},\n', r"f\.json:2: not JSON \(the list has no end\)"),
        ('[{"text": "a"}]\nmore', r"f\.json:2: not JSON \(something follows the end of the list\).*'more'"),
        (
            '[{"text": "a"},\n{"text": b}]',
            r"f\.json:2: not JSON \(Expecting value.*goes on with '{\"text\": b}\]'",
        ),
        ("[[1]]", r"f\.json:1: a JSON list; each row must be one JSON object"),
        ("7", r"f\.json:1: a JSON int; each row"),
        ("[" * 100_000, r"f\.json:1: not JSON"),
    ],
)
def test_what_is_no_list_of_rows_is_refused_with_its_line(content: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        rows(content)


def test_a_row_without_an_end_does_not_fill_the_memory() -> None:
    with pytest.raises(RecordError, match=r"f\.json:1: no row ends within 100 bytes.*--max-line-bytes"):
        rows('[{"text": "' + "x" * 1000, limit=100)


def test_a_damaged_file_and_another_encoding_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps(ROWS * 100).encode())[:-20])
    with pytest.raises(RecordError, match=r"a\.json\.gz:\d+: cannot be read .*cut short or damaged"):
        list(read_documents([str(path)]))
    plain = tmp_path / "b.json"
    plain.write_bytes(b'[{"text": "caf\xe9"}]')
    with pytest.raises(RecordError, match=r"b\.json:1: byte 0xe9 near here is not UTF-8"):
        list(read_documents([str(plain)]))


def test_documents_come_from_a_json_file_that_is_named_and_not_from_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS[:2]), encoding="utf-8")
    assert [document.text for document in read_documents([str(path)])] == ["a [b] {c}", "é\n]"]
    (tmp_path / "a.txt").write_text("x\n", encoding="utf-8")
    assert [found.name for found in expand_inputs([str(tmp_path)])] == ["a.txt"]
    assert [found.name for found in expand_inputs([str(tmp_path / "*.json")])] == ["rows.json"]


def test_rows_of_one_line_are_told_apart_in_ids_and_messages(tmp_path: Path) -> None:
    """As `json.dump` writes a list: all on one line."""
    path = tmp_path / "rows.json"
    path.write_text('[{"text": "a"}, {"text": "b"},\n{"text": "c"}, {"text": 7}]', encoding="utf-8")
    documents = read_documents([str(path)])
    found = [next(documents).doc_id for _ in range(3)]
    assert found == [f"{path}:1", f"{path}:1.2", f"{path}:2"]
    with pytest.raises(RecordError, match=r"rows\.json:2\.2: 'text' is a number"):
        next(documents)
    reader = DocumentReader([str(path)])
    reader.name_of = lambda path: path.name
    assert [document.doc_id for document in islice(reader, 2)] == ["rows.json:1", "rows.json:1.2"]
    assert [place for place, _ in open_rows(path)] == [f"{path}{end}" for end in (":1", ":1.2", ":2", ":2.2")]
    assert [place for place, _ in read_rows(str(path))] == [place for place, _ in open_rows(path)]


def test_a_hit_in_a_row_of_several_on_a_line_names_file_and_line() -> None:
    place = Place(lines=(1, 1))
    for doc_id in ("rows.json:1", "rows.json:1.2"):
        assert Hit(doc_id, 1.0, source="/here/rows.json", place=place).where == "rows.json:1"
