from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest

from embedkit.data.one_file import open_lines, open_rows
from embedkit.errors import RecordError


def test_lines_are_read_plain_compressed_and_from_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "a\n\nbé\r\n".encode()
    (tmp_path / "x").write_bytes(content)  # the ending does not matter
    with gzip.open(tmp_path / "x.gz", "wb") as stream:
        stream.write(content)
    for path in (tmp_path / "x", str(tmp_path / "x.gz")):
        assert list(open_lines(path)) == [(1, "a"), (2, ""), (3, "bé")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert list(open_lines("-")) == [(1, "a"), (2, ""), (3, "bé")]


def test_what_is_not_one_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a\n", encoding="utf-8")
    (tmp_path / "b.tsv").write_text("b\n", encoding="utf-8")
    for path, message in (
        (tmp_path, r": a folder; this must be one file"),
        (tmp_path / "a.tv", r"a.tv: there is no such file or folder; did you mean '.*a.tsv'"),
        (tmp_path / "*.tsv", r"\*.tsv: the pattern matches 2 files; this must be one"),
    ):
        with pytest.raises(RecordError, match=message):
            list(open_lines(path))


def test_rows_know_their_place_and_other_files_are_refused(tmp_path: Path) -> None:
    path, text = tmp_path / "x.csv", tmp_path / "x.txt"
    path.write_text('a,b\n1,"x\ny"\n2,z\n', encoding="utf-8")
    assert [(where.rpartition("/")[2], row) for where, row in open_rows(path)] == [
        ("x.csv:2", {"a": "1", "b": "x\ny"}),
        ("x.csv:4", {"a": "2", "b": "z"}),
    ]
    text.write_text("a\n", encoding="utf-8")
    with pytest.raises(
        RecordError, match=r"x.txt: the ending is '.txt'; rows with named columns are read from"
    ):
        list(open_rows(text))
    broken = tmp_path / "x.jsonl"
    broken.write_text("{}\n[1]\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"x.jsonl:2: a JSON list"):
        list(open_rows(broken))
