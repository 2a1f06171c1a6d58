"""A walk reads what it knows and counts what it leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedkit.data.reading import DocumentReader
from embedkit.data.walking import walk
from embedkit.errors import RecordError


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the text of {path.stem}\n", encoding="utf-8")


def test_what_is_left_out_is_counted_by_ending_and_reason(tmp_path: Path) -> None:
    make(tmp_path / "other", "l.md")
    make(
        tmp_path / "v",
        *("a.md", "sub/b.txt", ".trash/old.md", ".git/desc.txt", ".hidden.md", "node_modules/x/README.md"),
        *("p.pdf", "x.json", "n.org", "my.index/index.sqlite", "my.index/notes.md"),
    )
    (tmp_path / "v" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "v" / "loop").symlink_to(tmp_path / "v")
    (tmp_path / "v" / "gone.md").symlink_to(tmp_path / "nothing.md")
    files, left = walk(tmp_path / "v")
    assert [path.name for path in files] == ["a.md", "b.txt"]
    assert left.endings == {".pdf": 1, ".json": 1, ".org": 1}
    assert left.counts == {
        "hidden files": 1,
        "hidden folders": 2,
        "folders called node_modules": 1,
        "folders that are an index": 1,
        "links to folders": 2,
        "files that are links to nothing, or no files": 1,
    }
    assert left.described().startswith("3 files of other kinds (.json .org .pdf), ")
    assert "1 folder called node_modules" in left.described()


def test_a_file_is_read_once_whatever_names_it_has(tmp_path: Path) -> None:
    """Two names of one file were one id twice, and ended the build of its folder."""
    make(tmp_path, "notes/b.md", "notes/sub/c.md", "more/d.md")
    (tmp_path / "notes" / "a.md").symlink_to("b.md")  # by name it comes before what it leads to
    (tmp_path / "notes" / "d.md").symlink_to(tmp_path / "more" / "d.md")
    (tmp_path / "same").symlink_to(tmp_path / "notes")

    def read(*inputs: Path) -> tuple[list[str], int]:
        reader = DocumentReader([str(each) for each in inputs])
        names = [document.shown.removeprefix(f"{tmp_path}/") for document in reader]
        return names, reader.left_out.counts["files read under another name"]

    notes = tmp_path / "notes"
    assert read(notes) == (["notes/b.md", "notes/d.md", "notes/sub/c.md"], 1)
    assert read(notes, tmp_path / "more") == (["notes/b.md", "notes/sub/c.md", "more/d.md"], 2)
    assert read(notes, tmp_path / "same")[0] == ["notes/b.md", "notes/d.md", "notes/sub/c.md"]
    # What is named itself is read, and a row of vectors is for each name.
    assert read(notes / "b.md", notes / "a.md") == (["notes/b.md", "notes/a.md"], 0)


def test_where_the_default_index_lies_is_not_worth_a_word(tmp_path: Path) -> None:
    make(tmp_path, "a.md", ".embedkit/index/index.sqlite", "b")
    _, left = walk(tmp_path)
    assert left.described() == "1 file of another kind (no ending)"


def test_a_bad_file_of_a_folder_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "c.md")
    (tmp_path / "b.md").write_bytes(b"caf\xe9")
    reader = DocumentReader([str(tmp_path)], tolerant=True)
    assert [Path(document.source).name for document in reader] == ["a.md", "c.md"]
    assert len(reader.failed) == 1
    assert "b.md" in reader.failed[0]
    with pytest.raises(RecordError, match=r"b\.md"):
        list(DocumentReader([str(tmp_path)]))
    with pytest.raises(RecordError, match=r"b\.md"):  # what was named itself stays an error
        list(DocumentReader([str(tmp_path / "b.md")], tolerant=True))


def test_a_source_is_the_resolved_path_and_messages_say_what_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "docs/a.md")
    monkeypatch.chdir(tmp_path)
    (document,) = DocumentReader(["docs/../docs"])
    assert document.source == (tmp_path / "docs" / "a.md").resolve().as_posix()
    assert document.doc_id == document.where == "docs/../docs/a.md"
