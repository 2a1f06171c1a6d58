"""Text as Windows, Excel and old Macs write it: read as what it is, or refused with what it seems to be."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.encodings import decode
from embedkit.data.formats import read_lines, sniff
from embedkit.data.reading import read_documents, read_stream
from embedkit.data.records import ReadOptions
from embedkit.errors import RecordError

LIMIT = ReadOptions.max_line_bytes
TEXT = "naïve 東京\nsecond 😀\n"


def texts(path: Path) -> list[str]:
    return [document.text for document in read_documents([str(path)])]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-mark", "utf-16-be-mark"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_encoding_with_every_line_end_gives_the_same_lines(
    encoding: str, ending: str, packed: bool, tmp_path: Path
) -> None:
    content = TEXT.replace("\n", ending)
    if encoding.endswith("-mark"):
        content, encoding = "\ufeff" + content, encoding.removesuffix("-mark")
    raw = content.encode(encoding)
    path = tmp_path / ("a.txt.gz" if packed else "a.txt")
    path.write_bytes(gzip.compress(raw) if packed else raw)
    assert texts(path) == ["naïve 東京", "second 😀"]
    assert list(read_lines(io.BytesIO(raw), "pipe", LIMIT)) == [(1, "naïve 東京"), (2, "second 😀")]
    assert decode(raw)[0].splitlines() == TEXT.splitlines()


@given(st.lists(st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]))))
def test_utf_16_is_read_as_the_same_text_in_utf_8(lines: list[str]) -> None:
    content = "".join(line + "\n" for line in lines)
    found = read_lines(io.BytesIO(content.encode("utf-16")), "pipe", LIMIT)
    assert [line for _, line in found] == lines


def test_a_stray_cr_in_a_long_line_is_a_sign_like_others(tmp_path: Path) -> None:
    """The first line is longer than what is looked at first: it is the end that tells."""
    path = tmp_path / "a.txt"
    long = "x" * 50_000 + "\r" + "y" * 50_000
    path.write_bytes(long.encode() + b"\nend\n")
    assert texts(path) == [long, "end"]


def test_a_table_of_excel_for_macs_keeps_the_lines_of_a_quoted_cell(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id;text\r1;"two\rlines"\r2;one\r')
    assert texts(path) == ["two\nlines", "one"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            "hello\n".encode("utf-16-le"),
            r":1: a NUL byte at column 2, which no text has\. .*iconv -f utf-16le",
        ),
        (b"good\nb\0d\n", ":2: a NUL byte at column 2"),
        (b"\xff\xfea", ":1: begins as UTF-16, but is not .*fetch the file again"),
        ("\ufeff\ud800".encode("utf-16-le", "surrogatepass"), ":1: begins as UTF-16, but is not"),
        (b"caf\xe9\n", ":1: byte 0xe9 at column 4 is not UTF-8"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(raw)
    with pytest.raises(RecordError, match=rf"a\.txt{message}"):
        texts(path)


def test_a_whole_file_in_utf_16_is_read_and_one_without_a_mark_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# Title\nnaïve", encoding="utf-16")
    (document,) = read_documents([str(path)])
    assert (document.title, document.text) == ("Title", "# Title\nnaïve")
    path.write_text("text", encoding="utf-16-le")
    with pytest.raises(RecordError, match=r"a\.md: a NUL byte at character 2"):
        texts(path)


def test_a_pipe_tells_its_format_also_in_utf_16() -> None:
    for content, form in (
        ('{"text": "a"}\n', "jsonl"),
        ("a\n", "txt"),
        ("[\n", "json"),
        ('[{"text": "a"}]', "json"),
    ):
        assert sniff(io.BytesIO(content.encode("utf-16")), LIMIT)[1] == form
    assert sniff(io.BytesIO(b"[1] a note\n"), LIMIT)[1] == sniff(io.BytesIO(b"[1, 2]\n"), LIMIT)[1] == "txt"
    with pytest.raises(RecordError, match=r"^stdin:1: begins as UTF-16, but is not"):
        sniff(io.BytesIO(b"\xff\xfea"), LIMIT)
    found = read_stream(
        io.BytesIO('[\n{"text": "a"},\n{"text": "b"}]'.encode("utf-16")), "stdin", ReadOptions()
    )
    assert [(document.text, document.line) for document in found] == [("a", 2), ("b", 3)]


def test_a_json_list_that_begins_as_utf_16_and_is_not_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe[\x00{")
    with pytest.raises(RecordError, match=r"a\.json:1: begins as UTF-16, but is not"):
        texts(path)
