"""Parts of files: together they read as the file does, wherever it is cut; what cannot be read is set aside, line by line."""

from __future__ import annotations

import gzip
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.parts import FilePart, read_part
from embedkit.data.reading import read_documents
from embedkit.data.records import Document, ReadOptions
from embedkit.distributed.cutting import cut
from embedkit.errors import RecordError

LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0")), min_size=1, max_size=30)


def read_all(parts: list[FilePart], options: ReadOptions, refused: list[str] | None = None) -> list[Document]:
    refuse = pytest.fail if refused is None else refused.append
    return [document for part in parts for document in read_part(part, options, refuse)]


def cut_parts(paths: list[Path], options: ReadOptions, shards: int) -> list[FilePart]:
    return [part for parts in cut(paths, options, shards).shards for part in parts]


@given(
    lines=LINES,
    shards=st.integers(1, 9),
    end=st.sampled_from(("\n", "\r\n")),
    mark=st.booleans(),
    last=st.booleans(),
)
def test_the_parts_of_a_text_file_read_as_the_file_does(
    lines: list[str], shards: int, end: str, mark: bool, last: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        text = end.join(lines) + end * last
        path.write_bytes(("\ufeff" * mark + text or "x").encode())
        options = ReadOptions()
        parts = cut_parts([path], options, shards)
        assert read_all(parts, options) == list(read_documents([str(path)], options))
        assert parts[0].first == 0
        assert parts[-1].last == path.stat().st_size


def test_a_part_begins_with_the_next_line(tmp_path: Path) -> None:
    """Lines of 4 bytes, 6 of them, in 4 parts: borders at 6, 12 and 18 become 8, 12 and 20."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"aaa\nbbb\nccc\nddd\neee\nfff\n")
    parts = cut_parts([path], ReadOptions(), 4)
    assert [(part.first, part.last, part.line) for part in parts] == [
        (0, 8, 1),
        (8, 12, 3),
        (12, 20, 4),
        (20, 24, 6),
    ]


def test_lines_that_cannot_be_read_are_set_aside_and_those_after_them_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = [json.dumps({"id": str(number), "text": "word"}) for number in range(6)]
    rows = [good[0], "{", good[1], json.dumps({"id": "x"}), json.dumps({"text": "y" * 300}), good[2]]
    path.write_text("\n".join(rows) + "\n" + "\n".join(good[3:]), encoding="utf-8")
    for shards in (1, 3):
        options, refused = ReadOptions(max_line_bytes=100), []  # type: tuple[ReadOptions, list[str]]
        found = read_all(cut_parts([path], options, shards), options, refused)
        assert [document.doc_id for document in found] == ["0", "1", "2", "3", "4", "5"]
        assert [document.line for document in found] == [1, 3, 6, 7, 8, 9]
        assert [reason.split(" ")[0] for reason in refused] == [f"{path}:{line}:" for line in (2, 4, 5)]


@pytest.mark.parametrize("shards", [1, 3])
def test_compressed_files_and_documents_stay_whole_in_the_order_of_the_input(
    tmp_path: Path, shards: int
) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write('{"text": "three"}\n{"text": "four"}\nno\n{"text": "five"}\n')
    (tmp_path / "c.md").write_text("# Six\n\nseven\n", encoding="utf-8")
    (tmp_path / "d.csv").write_text('text,year\n"ei\nght",2020\nnine,2021\n', encoding="utf-8")
    paths = sorted(tmp_path.iterdir())
    refused: list[str] = []
    parts = cut_parts(paths, ReadOptions(), shards)
    found = read_all(parts, ReadOptions(), refused)
    assert [document.text for document in found] == [
        "one",
        "two",
        "three",
        "four",
        "five",
        "# Six\n\nseven\n",
        "ei\nght",
        "nine",
    ]
    assert found[-1].metadata == {"year": 2021}
    assert [document.line for document in found[2:5]] == [1, 2, 4]
    assert len(refused) == 1
    assert "b.jsonl.gz:3" in refused[0]


def test_other_bytes_than_were_planned_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"aaa\nbbb\nccc\n")
    first, second = cut_parts([path], ReadOptions(), 2)
    path.write_bytes(b"aaa\nbbb\nccd\n")
    assert len(read_all([first], ReadOptions())) == 2
    with pytest.raises(RecordError, match=r"a\.txt: bytes 8 to 12 are not those that were planned"):
        read_all([second], ReadOptions())
    with pytest.raises(RecordError, match="bytes 0 to 12 are not those"):
        read_all([replace(first, last=12, whole=True)], ReadOptions())


def test_utf16_and_old_macs_lines_stay_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\ntwo\nthree\n".encode("utf-16"))
    (tmp_path / "b.txt").write_bytes(b"four\rfive\rsix\r")
    parts = cut_parts(sorted(tmp_path.iterdir()), ReadOptions(), 5)
    assert [part.whole for part in parts] == [True, True]
    assert [document.text for document in read_all(parts, ReadOptions())] == [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
    ]


def test_nothing_to_cut_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(RecordError, match="the input has no bytes"):
        cut([tmp_path / "a.txt"], ReadOptions(), 3)
