"""A walk reads what it knows and counts what it leaves out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedkit.data.reading import DocumentReader
from embedkit.data.records import ReadOptions
from embedkit.data.walking import Walker, WalkOptions, walk
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
    assert left.counts.total() == 8
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


EVERYTHING = WalkOptions(ignore=True, kinds="text")


def names(folder: Path, options: WalkOptions = EVERYTHING) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in walk(folder, options)[0]]


def test_ignore_files_rule_as_git_has_it_and_the_nearer_and_later_rule_counts(tmp_path: Path) -> None:
    make(
        tmp_path,
        *(
            "a.py",
            "a.log",
            "keep.log",
            "b.tmp",
            "only.txt",
            "logs/x.txt",
            "sub/a.log",
            "sub/c.py",
            "sub/deep/d.gen",
        ),
        *("sub/deep/keep.gen", "doc/notes.md", "doc/draft.md"),
    )
    (tmp_path / ".gitignore").write_text("*.log\n!keep.log\nlogs/\n/only.txt\n[\n", encoding="utf-8")
    (tmp_path / ".ignore").write_text("*.tmp\n", encoding="utf-8")
    (tmp_path / ".embedkitignore").write_text("draft.md\n", encoding="utf-8")
    (tmp_path / "sub" / ".gitignore").write_text("!a.log\n*.gen\n", encoding="utf-8")
    (tmp_path / "sub" / "deep" / ".ignore").write_text("!keep.gen\n", encoding="utf-8")
    read = ["a.py", "doc/notes.md", "keep.log", "sub/a.log", "sub/c.py", "sub/deep/keep.gen"]
    assert names(tmp_path) == read
    left = walk(tmp_path, EVERYTHING)[1]
    assert left.counts["files that ignore files name"] == 5
    assert left.counts["folders that ignore files name"] == 1
    assert len(names(tmp_path, WalkOptions(kinds="text"))) == 12
    # The rules above a folder count for it too, inside a repository, unless they ignore the folder itself.
    assert names(tmp_path / "sub") == ["a.log", "c.py", "deep/keep.gen"]
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub" / "e.tmp").touch()
    assert names(tmp_path / "sub") == ["a.log", "c.py", "deep/keep.gen"]
    assert names(tmp_path / "logs") == ["x.txt"]
    (tmp_path / ".git" / "info").mkdir()
    (tmp_path / ".git" / "info" / "exclude").write_text("c.py\n", encoding="utf-8")
    assert names(tmp_path / "sub") == ["a.log", "deep/keep.gen"]


def test_hidden_binary_large_and_build_files_are_left_out_and_counted(tmp_path: Path) -> None:
    make(
        tmp_path,
        *("a.py", "Makefile", ".env", ".config/c.txt", ".git/config", "build/out.txt", "node_modules/x/a.js"),
        *(
            "src/build/not_built.txt",
            "cached/CACHEDIR.TAG",
            "cached/c.txt",
            "my env/pyvenv.cfg",
            "my env/lib.py",
        ),
    )
    (tmp_path / "prog").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "utf16.txt").write_bytes("text".encode("utf-16"))
    (tmp_path / "large.txt").write_bytes(b"x" * 1001)
    options = WalkOptions(ignore=True, kinds="text", max_bytes=1000)
    files, left = walk(tmp_path, options)
    assert [path.name for path in files] == ["Makefile", "a.py", "not_built.txt", "utf16.txt"]
    assert left.endings == {"": 1}
    assert left.counts == {
        "hidden files": 1,
        "hidden folders": 2,
        "build folders called build": 1,
        "folders called node_modules": 1,
        "cache folders": 1,
        "virtual environments": 1,
        "files larger than 0.001 MB": 1,
    }
    hidden = names(tmp_path, WalkOptions(ignore=True, hidden=True, kinds="text"))
    assert {".env", ".config/c.txt"} <= set(hidden)
    assert not any(name.startswith(".git/") for name in hidden)
    everything = names(tmp_path, WalkOptions(kinds="text"))
    assert {"build/out.txt", "node_modules/x/a.js", "cached/c.txt", "my env/lib.py"} <= set(everything)


def test_odd_names_links_and_folders_that_may_not_be_read_are_no_crash(tmp_path: Path) -> None:
    make(tmp_path, "with space.txt", "new\nline.txt", "é.txt", "sub/a.txt")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt"))).write_text("x", encoding="utf-8")
    (tmp_path / "same.txt").symlink_to(tmp_path / "sub" / "a.txt")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    os.mkfifo(tmp_path / "pipe.txt")
    files, left = walk(tmp_path, EVERYTHING)
    assert [path.name for path in files] == ["a.txt", "with space.txt", "é.txt"]
    assert left.counts == {
        "files whose names hold line ends, tabs or bytes that are not UTF-8": 2,
        "links to files of the same folder": 1,
        "links to folders": 1,
        "files that are links to nothing, or no files": 2,
    }


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the system's refusal is played."""
    make(tmp_path, "a.txt", "locked/b.txt")
    real = os.scandir

    def scandir(folder: Path) -> object:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    files, left = walk(tmp_path, EVERYTHING)
    assert [path.name for path in files] == ["a.txt"]
    assert left.unreadable == [f"{tmp_path / 'locked'}: cannot be read (Permission denied)"]


def test_one_folder_is_listed_as_the_whole_walk_lists_it(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "sub/a.log", "sub/deep/b.py", "sub/deep/b.log")
    (tmp_path / ".gitignore").write_text("*.log\n", encoding="utf-8")
    walker = Walker(tmp_path, EVERYTHING)
    by_path = {listing.path: listing for listing in walker.walk()}
    assert list(by_path) == ["", "sub", "sub/deep"]
    for path, listing in by_path.items():
        assert walker.list(path, walker.rules(path)) == listing
    assert [entry.name for entry in by_path[""].ignore_files] == [".gitignore"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Der Käufer prüft die Größe der Tür, bevor er sie schließt.", "cp1252"),
        ("Съешь же ещё этих мягких французских булок, да выпей чаю", "cp1251"),
        ("Съешь же ещё этих мягких французских булок, да выпей чаю", "koi8_r"),
        ("これは日本語の文章です。検索のために書かれました。", "cp932"),
        ("Zażółć gęślą jaźń. Chrząszcz brzmi w trzcinie.", "cp1250"),
        ("Ein Text mit einem Zeichen: ö", "utf-16"),
    ],
)
def test_legacy_encodings_are_told_apart_and_named(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    reader = DocumentReader([str(tmp_path)], ReadOptions(text_unit="file"), tolerant=True, walking=EVERYTHING)
    assert [document.text for document in reader] == [text]
    assert reader.encodings == {encoding: 1}
    assert reader.failed == []
