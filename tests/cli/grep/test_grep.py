"""`embedkit grep`: what a user and a script see of it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.grep.editor import editor_command
from cli.grep.output import opens_links
from cli.main import app
from embedkit.errors import OutputError
from embedkit.pipelines.grep.home import Home, cached_homes
from tests.tiny import write_tiny_model

FILES = {
    "animals.md": "# Animals\n\nthe dog runs\n\n## Cats\n\nthe cat sleeps\n",
    "music/play.py": "def play():\n    return 'guitar'\n",
    "music/song.txt": "a woman sings a song\n",
    "my notes/day one.txt": "the horse walks\n",
}


class Result:
    """What a call printed and how it ended."""

    def __init__(self, *arguments: object, exit_code: int = 0) -> None:
        result = CliRunner().invoke(app, ["grep", *map(str, arguments)])
        assert result.exit_code == exit_code, (result.output, result.exception)
        self.out, self.notes = result.stdout, result.stderr

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (1e9, 1e9 + 0.5))  # what was written a moment ago may change without another time
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EMBEDKIT_MODEL", str(tiny_model))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def grep(*arguments: object, exit_code: int = 0) -> Result:
    return Result(*arguments, "--mode", "text", exit_code=exit_code)


@pytest.mark.usefixtures("folder")
def test_the_first_call_says_what_it_read_and_a_hit_is_a_line_in_a_pipe() -> None:
    first = grep("guitar")
    assert first.lines == ["music/play.py:2:    return 'guitar'"]
    assert "reading 4 files of" in first.notes
    assert "4 files, " in first.notes
    again = grep("guitar")
    assert (again.lines, again.notes) == (first.lines, "")
    assert Result("guitar", "-k", 1).lines == first.lines  # hybrid, the default


@pytest.mark.usefixtures("folder")
def test_exit_codes_are_those_of_grep() -> None:
    assert grep("zebra", exit_code=1).out == ""
    assert "there is no such file or folder" in grep("zebra", "nowhere", exit_code=2).notes
    assert "no regular expression" in grep("dog", "-e", "(", exit_code=2).notes
    assert "say what to look for" in grep(exit_code=2).notes
    assert "2 an error" in Result("--help").out


@pytest.mark.usefixtures("folder")
def test_forms_of_output() -> None:
    assert sorted(grep("dog song horse", "-l").lines) == [
        "animals.md",
        "music/song.txt",
        "my notes/day one.txt",
    ]
    assert grep("cat sleeps", "-N").lines == ["animals.md:the cat sleeps"]
    assert grep("cat sleeps", "--vimgrep").lines == ["animals.md:7:5:the cat sleeps"]
    assert grep("cat sleeps", "-C", 2).lines == [
        "animals.md-5-## Cats",
        "animals.md-6-",
        "animals.md:7:the cat sleeps",
    ]
    heading = grep("cat", "--heading", "--color", "always").out
    assert "\x1b[1;35manimals.md:1-7\x1b[0m" in heading
    assert "the \x1b[1;33mcat\x1b[0m sleeps" in heading
    (row,) = map(json.loads, grep("cat", "--json").lines)
    assert (row["path"], row["where"], row["place"]["lines"]) == ("animals.md", "animals.md:1-7", [1, 7])
    (row,) = map(json.loads, grep("cat", "--json", "-l").lines)
    assert row == {"path": "animals.md"}
    whole = grep("cat", "--tokens", 100).lines
    assert whole[0] == "animals.md:1-7"
    assert "the cat sleeps" in whole
    none = grep("cat", "--tokens", 2)
    assert none.lines == []
    assert "found, of which none fits into 2 tokens" in none.notes


def test_paths_name_files_as_seen_from_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert grep("song", "music").lines == ["music/song.txt:1:a woman sings a song"]
    monkeypatch.chdir(folder / "music")
    assert grep("song").lines == ["song.txt:1:a woman sings a song"]
    assert grep("song", "song.txt").lines == ["song.txt:1:a woman sings a song"]
    assert grep("horse", folder / "my notes").lines == [f"{folder}/my notes/day one.txt:1:the horse walks"]
    both = grep("song horse", ".", "../my notes", "-l").lines
    assert sorted(both) == [f"{folder}/my notes/day one.txt", "song.txt"]


@pytest.mark.usefixtures("folder")
def test_types_patterns_and_expressions_narrow_the_search() -> None:
    assert sorted(grep("song guitar dog", "--type", "py,md", "-l").lines) == ["animals.md", "music/play.py"]
    assert grep("song guitar", "-g", "!*.py", "-l").lines == ["music/song.txt"]
    assert grep("song guitar", "-e", "RETURN", "-i", "-l").lines == ["music/play.py"]
    assert grep("song guitar", "-e", "RETURN", "-l", exit_code=1).lines == []
    assert grep("song guitar", "--where", "id like 'music/s%'", "-l").lines == ["music/song.txt"]


def test_changes_are_seen_or_counted(folder: Path) -> None:
    grep("dog")
    (folder / "animals.md").write_text("# Animals\n\nthe bird flies\n", encoding="utf-8")
    (folder / "new.txt").write_text("a bird sings", encoding="utf-8")
    never = grep("bird", "--refresh", "never", exit_code=1)
    assert "not seen yet: 2 files have changed (--refresh always)" in never.notes
    assert sorted(grep("bird", "-l").lines) == ["animals.md", "new.txt"]
    (folder / "new.txt").unlink()
    assert grep("bird", "-l", "--refresh", "always").lines == ["animals.md"]


def test_status_init_and_forget(folder: Path) -> None:
    assert "no index yet" in Result("--status").out
    grep("dog")
    status = json.loads(Result("--status", "--json").out)
    assert (status["files"], status["complete"], status["changed"]) == (4, True, 0)
    (folder / "new.txt").touch()
    assert json.loads(Result("--status", "--json").out)["changed"] == 1
    assert "removed" in Result("--forget").notes
    assert "nothing is kept of it" in Result("--forget", exit_code=2).notes
    Result("--init", "--hidden")
    assert (folder / ".embedkit" / "grep" / ".gitignore").read_text(encoding="utf-8") == "*\n"
    (folder / ".secret.txt").write_text("the piano", encoding="utf-8")
    assert grep("piano", "-l").lines == [".secret.txt"]
    assert Path(json.loads(Result("--status", "--json").out)["index"]).parent == folder / ".embedkit"
    result = CliRunner().invoke(app, ["grep", "--init", "--status"])
    assert result.exit_code == 2
    assert "exclude each other" in result.output


def test_a_model_of_another_fingerprint_is_refused_until_the_index_may_be_built_again(
    folder: Path, tmp_path: Path
) -> None:
    grep("dog")
    other = write_tiny_model(tmp_path / "other", seed=1)
    refused = Result("dog", "--model", other, exit_code=2)
    assert "was built by another encoder: weights is" in refused.notes
    assert "Build it again with --rebuild" in refused.notes
    assert Result("dog", "--model", other, "--rebuild", "-k", 1).lines
    assert Result("dog", "-k", 1).lines  # the index knows its model
    (folder / "animals.md").write_text("a dog", encoding="utf-8")
    assert "Build it again" in Result("dog", "--model", os.environ["EMBEDKIT_MODEL"], exit_code=2).notes


def test_where_nothing_can_be_kept_the_answer_comes_all_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, so the cache's place is taken by a file."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "file" / "cache"))
    found = grep("guitar")
    assert found.lines == ["music/play.py:2:    return 'guitar'"]
    assert "The index is not kept" in found.notes
    assert "for this call alone" in found.notes


def test_where_an_index_cannot_be_written_it_answers_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grep("dog")
    (folder / "new.txt").write_text("a bird", encoding="utf-8")

    def held(home: Home, *, wait: bool = False) -> object:
        raise OutputError(f"{home.path}: cannot be written (Read-only file system). Set EMBEDKIT_CACHE")

    monkeypatch.setattr(Home, "held", held)
    found = grep("dog", "-l")
    assert found.lines == ["animals.md"]
    assert "Read-only file system). Set EMBEDKIT_CACHE. The index stays as it was" in found.notes
    assert "not seen yet: 1 file has changed" in found.notes


def test_a_large_file_is_left_out_and_said(folder: Path) -> None:
    with (folder / "large.log").open("wb") as stream:
        stream.truncate(2**30)
    first = grep("dog")
    assert "1 file larger than 4 MB" in first.notes
    assert first.lines == ["animals.md:3:the dog runs"]


def test_nothing_to_read_says_what_was_left_out(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").touch()
    found = grep("dog", tmp_path / "empty", exit_code=2)
    assert "there is no text to search. Left out: 1 hidden file" in found.notes


def test_a_hit_is_opened_in_the_editor(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = tmp_path / "vim"
    editor.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/opened"\n', encoding="utf-8")
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{editor} -R")
    grep("cat sleeps", "--open", 1)
    assert (tmp_path / "opened").read_text(encoding="utf-8") == f"-R +7 {folder}/animals.md\n"
    assert "there is no hit 2; the search found 1" in grep("cat", "--open", 2, exit_code=2).notes
    monkeypatch.delenv("EDITOR")
    assert "no editor is set" in grep("cat", "--open", 1, exit_code=2).notes


def test_editors_are_told_the_line_as_they_want_it() -> None:
    assert editor_command(["/usr/bin/code", "-w"], Path("a.py"), 7)[2:] == ["--goto", "a.py:7"]
    assert editor_command(["hx"], Path("a.py"), 7) == ["hx", "a.py:7"]
    assert editor_command(["emacs", "-nw"], Path("a.py"), 7) == ["emacs", "-nw", "+7", "a.py"]


def test_links_are_written_where_the_terminal_says_that_it_opens_them() -> None:
    assert opens_links({"TERM_PROGRAM": "WezTerm"})
    assert opens_links({"VTE_VERSION": "7006"})
    assert not opens_links({"VTE_VERSION": "4205"})
    assert opens_links({"FORCE_HYPERLINK": "1"})
    assert not opens_links({"FORCE_HYPERLINK": "0", "TERM_PROGRAM": "WezTerm"})
    assert not opens_links({})


@pytest.mark.usefixtures("folder")
def test_the_cache_is_trimmed_to_its_limit(tmp_path: Path) -> None:
    grep("dog", "music", exit_code=1)
    assert "removed the index of" not in grep("dog", "my notes", exit_code=1).notes
    found = grep("dog", "animals.md", "--cache-limit", "1KB")
    assert found.notes.count("removed the index of") == 2


def test_documents_are_named_by_page_slide_and_row_and_code_by_its_names(folder: Path) -> None:
    made = Path(__file__).resolve().parents[2] / "data" / "documents" / "fixtures"
    for name in ("guide.pdf", "guide.pptx"):
        (folder / name).write_bytes((made / name).read_bytes())
    (folder / "walk.py").write_text("class Walker:\n    def list(self): return 'files'\n", encoding="utf-8")
    lines = grep("trout").lines
    assert lines[0].startswith("guide.p")
    assert sorted(line.partition(":")[0] for line in lines) == ["guide.pdf p. 2", "guide.pptx slide 3"]
    rows = [json.loads(line) for line in grep("trout", "--json").lines]
    assert {row["where"] for row in rows} == {"guide.pdf p. 2", "guide.pptx slide 3"}
    assert [row["place"]["headings"] for row in rows if row["path"] == "guide.pptx"] == [["Fish"]]
    assert grep("trout", "--vimgrep", "-t", "pdf").lines[0].startswith("guide.pdf:1:1:")
    assert "class Walker" in grep("files", "--heading").out
    said = "1\n00:00:01,000 --> 00:00:02,000\nhello\n\n2\n00:00:03,000 --> 00:00:04,000\nthe <i>zebra</i>\n"
    (folder / "film.srt").write_text(said, encoding="utf-8")
    assert grep("hello").lines == ["film.srt:3:hello"]
    assert grep("zebra").lines[0].startswith("film.srt:")


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    refused = Result("dog", folder / "pipe", exit_code=2)
    assert "pipe: neither a file nor a folder" in refused.notes


def test_what_another_process_is_at_is_not_built_again(folder: Path) -> None:
    grep("dog")
    (home,) = cached_homes()
    with home.held() as mine:
        assert mine
        refused = Result("dog", "--rebuild", exit_code=2)
    assert "another process is bringing its index up to date" in refused.notes
    assert Result("dog", "--rebuild", "-k", 1).lines
