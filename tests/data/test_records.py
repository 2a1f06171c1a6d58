"""Reading records: every format, every place a message names, and files that are damaged."""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.places import Mark
from embedkit.data.reading import DocumentReader, read_documents, read_queries, read_stream
from embedkit.data.records import Document, ReadOptions, headed_text, titled_text
from embedkit.errors import RecordError


def texts_of(*paths: Path, **options: object) -> list[str]:
    read = ReadOptions(**options)  # type: ignore[arg-type] # a test names the options it wants
    return [document.text for document in read_documents([str(path) for path in paths], read)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def refusal(path: Path | str, **options: object) -> str:
    with pytest.raises(RecordError) as caught:
        texts_of(Path(path), **options)
    return str(caught.value)


def compress(content: bytes, ending: str) -> bytes:
    compressors: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        ".gz": gzip.compress,
        ".zst": zstandard.compress,
    }
    return compressors[ending](content)


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one dog\ntwo dögs\n"),
        ("a.jsonl", '{"text": "one dog"}\n\n{"text": "two d\\u00f6gs", "more": [1]}\n'),
        ("a.ndjson", '{"body": "one dog"}\r\n{"body": "two dögs"}'),
        ("a.csv", 'id,text\n1,one dog\n2,"two dögs"\n'),
        ("a.tsv", "text\tlabel\none dog\t0\ntwo dögs\t1\n"),
    ],
)
def test_every_line_format_is_read_plain_and_compressed(
    tmp_path: Path, name: str, content: str, ending: str
) -> None:
    path = write(tmp_path / (name + ending), compress(content.encode("utf-8"), ending))
    assert texts_of(path) == ["one dog", "two dögs"]


def test_parquet_columns_become_text_id_and_metadata(tmp_path: Path) -> None:
    table = pyarrow.table({"id": [7, 8], "content": ["one", "two"], "year": [1999, None]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    documents = list(read_documents([str(tmp_path / "a.parquet")]))
    assert [(d.doc_id, d.text, d.metadata, d.line) for d in documents] == [
        ("7", "one", {"year": 1999}, 1),
        ("8", "two", {"year": None}, 2),
    ]


def test_a_parquet_date_that_python_has_not_is_named_with_its_file(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["x"], "day": pyarrow.array([4_000_000], pyarrow.date32())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert "a.parquet: cannot be read as Parquet (date value out of range)" in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "title", "text"),
    [
        ("a.md", "intro\n\n# The title\nbody\n", "The title", "intro\n\n# The title\nbody\n"),
        ("a.rst", "Title\n=====\nbody", "Title", "Title\n=====\nbody"),
        ("plain.md", "no heading", "plain", "no heading"),
        ("empty.md", "", "", ""),
        ("blank.rst", " \n\t\n", "", " \n\t\n"),
        ("empty.html", "<html><body> <script>x</script></body></html>", "", ""),
        (
            "a.html",
            "<title>T</title><body><p>one</p><script>x</script><p>two &amp; 3</p>",
            "T",
            "one\ntwo & 3",
        ),
    ],
)
def test_whole_files_are_one_document_with_a_title(
    tmp_path: Path, name: str, content: str, title: str, text: str
) -> None:
    path = write(tmp_path / name, content)
    (document,) = read_documents([str(path)])
    assert (document.doc_id, document.title, document.text) == (path.as_posix(), title, text)
    assert (document.line, document.where) == (0, path.as_posix())


def test_front_matter_becomes_title_and_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "a.md", "---\ntitle: Front\ntags: [qa]\n---\n# Heading\nbody\n")
    (document,) = read_documents([str(path)])
    assert (document.title, document.text) == ("Front", "# Heading\nbody\n")
    assert document.metadata == {"tags": ["qa"]}


def test_an_html_page_is_read_in_the_charset_that_it_declares(tmp_path: Path) -> None:
    path = write(tmp_path / "a.html", "<meta charset=iso-8859-1><p>café</p>".encode("latin-1"))
    assert texts_of(path) == ["café"]
    path = write(tmp_path / "b.html", "<p>café</p>".encode("latin-1"))
    assert "byte 0xe9 at offset 6 is not UTF-8. Convert" in refusal(path)


def test_text_unit_file_makes_one_document_of_a_text_file_and_of_a_pipe(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\ntwo\n")
    assert texts_of(path, text_unit="file") == ["one\ntwo\n"]
    stream = io.BytesIO(b"one\ntwo\nthree\n")
    (document,) = read_stream(stream, "stdin", ReadOptions(text_unit="file"))
    assert document.text == "one\ntwo\nthree\n"


def test_ids_titles_and_metadata_come_from_the_usual_keys_or_the_named_ones(tmp_path: Path) -> None:
    row = {"_id": "q1", "title": "T", "text": "x", "lang": "en"}
    path = write(tmp_path / "a.jsonl", json.dumps(row) + "\n")
    (document,) = read_documents([str(path)])
    marks = (Mark(0, "line", 1),)
    fields = {"lang": "en"}
    assert document == Document("q1", "x", "T", fields, path.as_posix(), 1, path.as_posix(), marks)
    options = ReadOptions(text_field="title", id_field="lang", title_field="text")
    (document,) = read_documents([str(path)], options)
    assert (document.doc_id, document.text, document.title) == ("en", "T", "x")
    assert document.metadata == {"_id": "q1"}


def test_the_usual_keys_count_in_large_letters_too_but_the_exact_ones_come_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "ID;Title;Text\n7;T;x\n")
    (document,) = read_documents([str(path)])
    assert (document.doc_id, document.title, document.text, document.metadata) == ("7", "T", "x", {})
    path = write(tmp_path / "a.jsonl", '{"Text": "no", "text": "yes", "Body": "b"}\n')
    (document,) = read_documents([str(path)])
    assert (document.text, document.metadata) == ("yes", {"Text": "no", "Body": "b"})


def test_a_text_that_is_null_is_an_empty_one(tmp_path: Path) -> None:
    """As pandas writes a gap; what reads it counts the empty texts."""
    path = write(tmp_path / "a.jsonl", '{"text": null, "title": null}\n{"text": "x"}\n')
    assert [(document.text, document.title) for document in read_documents([str(path)])] == [
        ("", ""),
        ("x", ""),
    ]


def test_a_record_without_an_id_is_named_by_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n\n{"text": "y", "title": null}\n')
    assert [d.doc_id for d in read_documents([str(path)])] == [f"{path}:1", f"{path}:3"]
    assert [(q.query_id, q.text) for q in read_queries([str(path)])] == [
        (f"{path}:1", "x"),
        (f"{path}:3", "y"),
    ]


def test_blank_lines_stay_in_text_files_and_bom_and_crlf_go(tmp_path: Path) -> None:
    assert texts_of(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n\r\nthree")) == ["one", "", "three"]
    assert texts_of(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "x"}\r\n')) == ["x"]
    assert texts_of(write(tmp_path / "a.csv", b'\xef\xbb\xbftext\r\nx\r\n\r\n""\r\ny\r\n')) == ["x", "", "y"]
    assert texts_of(write(tmp_path / "a.md", b"\xef\xbb\xbfone")) == ["one"]


def test_csv_quotes_hold_commas_and_line_ends_and_places_name_the_first_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,text\n1,"a, ""b""\nc"\n\n2,d\n3,"e\n"\n4,x,y\n')
    read = iter(read_documents([str(path)]))
    documents = [next(read) for _ in range(3)]
    assert [(d.text, d.line) for d in documents] == [('a, "b"\nc', 2), ("d", 5), ("e\n", 6)]
    with pytest.raises(RecordError, match=r"a\.csv:8: 3 columns where the header has 2 \(id, text\)"):
        next(read)


@given(st.lists(st.tuples(st.text("ab,\"\n é\t'"), st.text('xy"\n,')), min_size=1))
def test_csv_gives_back_what_the_csv_module_wrote(rows: list[tuple[str, str]]) -> None:
    import csv

    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("text", "note"), *rows])
    stream = io.BytesIO(file.getvalue().encode("utf-8"))
    read = read_stream(stream, "a.csv", ReadOptions())
    assert [(document.text, document.metadata["note"]) for document in read] == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            '{"text": "x"}\n{"text": }\n',
            r"a\.jsonl:2: not JSON \(Expecting value.*starts '\{\"text\": \}'",
        ),
        ("a.jsonl", "[" * 200_000, r"a\.jsonl:1: not JSON \(maximum recursion depth"),
        ("a.jsonl", '["x"]\n', r"a\.jsonl:1: a JSON list; each line must be one JSON object"),
        (
            "a.jsonl",
            '{"words": "x", "n": 1}\n',
            r":1: missing key 'text'; keys here: words, n\. .*--text-field NAME",
        ),
        ("a.jsonl", '{"text": "x", "id": 1.5}\n', r":1: 'id' is a number; an id must be a string or a whole"),
        ("a.jsonl", '{"text": "x", "id": true}\n', r":1: 'id' is a boolean"),
        (
            "a.jsonl",
            '{"text": "x", "id": "a\\tb"}\n',
            r":1: 'id' is 'a\\tb'; an id must not be empty nor hold tabs",
        ),
        ("a.jsonl", '{"text": "x", "id": "a\\u0000b"}\n', r":1: 'id' is 'a\\x00b'; an id must .* or NUL\."),
        ("a.jsonl", '{"text": "x\\ud800"}\n', r":1: 'text' holds the lone surrogate U\+D800 at character 2"),
        ("a.txt", b"fine\nna\xefve\n", r"a\.txt:2: byte 0xef at column 3 is not UTF-8\. .*iconv"),
        ("a.md", b"na\xefve\n", r"a\.md: byte 0xef at offset 2 is not UTF-8"),
        ("a.csv", "text,text\nx,y\n", r"a\.csv:1: a column name occurs twice in the header: text, text"),
        ("a.csv", 'text\nx\n"y', r"a\.csv:3: not CSV \(unexpected end of data\)\. Check the quotes"),
        ("a.tsv", "text\tn\nx\n", r"a\.tsv:2: 1 columns where the header has 2 \(text, n\)"),
        ("a.parquet", b"PAR1 no", r"a\.parquet: cannot be read as Parquet .*Make or fetch the file again"),
        ("a.txt.gz", b"no gzip", r"a\.txt\.gz:1: cannot be read \(Not a gzipped file.*cut short or damaged"),
        ("a.txt.zst", b"no zstd", r"a\.txt\.zst:1: cannot be read \(not Zstandard: .*cut short or damaged"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(RecordError, match=message):
        texts_of(path)


def test_a_missing_id_or_text_key_that_was_asked_for_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n')
    assert "missing key 'url'; keys here: text. Rename one of them, or pass --id-field NAME" in refusal(
        path, id_field="url"
    )
    assert "missing key 'words'; keys here: text" in refusal(path, text_field="words")


@pytest.mark.parametrize("name", ["a.txt", "a.md"])
@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_that_is_cut_short_is_never_taken_for_a_whole_one(
    tmp_path: Path, name: str, ending: str
) -> None:
    words = random.Random(0).choices(["dog", "cat", "horse", "\n"], k=20_000)
    whole = compress(" ".join(words).encode(), ending)
    for size in (len(whole) // 3, len(whole) - 4):
        path = write(tmp_path / (name + ending), whole[:size])
        assert "cut short or damaged; make or fetch it again" in refusal(path)


def test_zstandard_frames_that_follow_one_another_are_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt.zst", zstandard.compress(b"one\ntw") + zstandard.compress(b"o\nthree"))
    assert texts_of(path) == ["one", "two", "three"]


def test_a_line_that_is_too_long_is_refused_before_it_is_all_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "short\n" + "x" * 30 + "\n")
    assert texts_of(path, max_line_bytes=31)[1] == "x" * 30
    message = refusal(path, max_line_bytes=20)
    assert "a.txt:2: the line is longer than 20 bytes" in message
    assert "--max-line-bytes" in message
    whole = write(tmp_path / "a.md", "x" * 30)
    assert "a.md: the file is larger than 20 bytes" in refusal(whole, max_line_bytes=5)


def test_a_line_of_fifty_megabytes_is_refused_by_default(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"x" * 50_000_000)
    assert "a.txt:1: the line is longer than 16,777,216 bytes" in refusal(path)
    assert len(texts_of(path, max_line_bytes=2**26)[0]) == 50_000_000


def test_folders_and_globs_give_their_files_once_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.txt", "sub/c.jsonl.gz", "picture.png"):
        write(tmp_path / name, gzip.compress(b'{"text": "x"}') if name.endswith("gz") else name)
    reader = DocumentReader([str(tmp_path), str(tmp_path / "*.txt")])
    assert [path.name for path in reader.paths] == ["a.txt", "b.txt", "c.jsonl.gz"]
    assert texts_of(tmp_path) == ["a.txt", "b.txt", "x"]
    assert reader.fraction() == 0.0
    assert len(list(reader)) == 3
    assert reader.fraction() == 1.0


def test_the_fraction_may_be_asked_for_while_another_thread_closes_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    reader = DocumentReader([str(tmp_path / "a.txt")])
    documents = iter(reader)
    next(documents)
    assert reader._stream is not None
    reader._stream.close()
    assert reader.fraction() == 0.0


def test_inputs_that_lead_nowhere_say_what_to_type(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", "")
    write(tmp_path / "picture.png", "")
    (tmp_path / "empty").mkdir()
    assert "there is no such file or folder; did you mean" in refusal(tmp_path / "corpus.json")
    assert "/corpus.jsonl'?" in refusal(tmp_path / "corpus.json")
    assert "check the path" in refusal(tmp_path / "elsewhere" / "x.txt")
    assert refusal("hello world").endswith(". To read a text itself, pipe it in and name it '-'")
    assert "the ending '.png' is not known; known are .txt .jsonl" in refusal(tmp_path / "picture.png")
    assert "the ending '.png' is not known" in refusal(tmp_path / "pic*")
    assert "the pattern matches no file; look with: ls" in refusal(tmp_path / "*.csv")
    assert "the folder holds no file. Name one that does" in refusal(tmp_path / "empty")
    (tmp_path / "pictures").mkdir()
    write(tmp_path / "pictures" / "a.png", "")
    assert "the folder holds no file with a known ending; known are" in refusal(tmp_path / "pictures")
    assert "Left out: 1 file of another kind (.png). Name the files" in refusal(tmp_path / "pictures")
    assert "cannot be looked up (File name too long)" in refusal("a text where a file was wanted " * 20)
    assert "holds a line end, a tab or bytes" in refusal(write(tmp_path / "a\nb.txt", "x"))
    with pytest.raises(RecordError, match="no input was given; name files, folders or globs, or '-'"):
        read_documents([])
    assert texts_of(write(tmp_path / "odd.dat", "x"), format="txt") == ["x"]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b'{"text": "x"}\n{"text": "y"}\n', ["x", "y"]),
        (b"x\ny\n", ["x", "y"]),
        (b'["x"]\ny', ['["x"]', "y"]),
        (b"[" * 100_000, ["[" * 100_000]),
        (b"", []),
    ],
)
def test_standard_input_is_json_lines_or_text_by_its_first_line(
    monkeypatch: pytest.MonkeyPatch, content: bytes, texts: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    documents = list(read_documents(["-"]))
    assert [document.text for document in documents] == texts
    assert [document.doc_id for document in documents] == [f"stdin:{i + 1}" for i in range(len(texts))]


def test_a_bound_below_one_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(ValueError, match="max_line_bytes is 0; it must be at least 1"):
        ReadOptions(max_line_bytes=0)


def test_a_title_is_joined_to_its_text_in_two_ways() -> None:
    assert titled_text("Title", "text") == "Title text"
    assert titled_text("", " text\n") == titled_text("text", "") == "text"
    assert headed_text("Title", "text") == "Title\ntext"
    assert headed_text("", " text\n") == " text\n"
