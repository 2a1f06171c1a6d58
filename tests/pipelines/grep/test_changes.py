"""What has changed in a folder is told by names, sizes and times, and nothing of it is missed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedkit.pipelines.grep import changes as looking
from embedkit.pipelines.grep.changes import UNSETTLED, Changes, find_changes, settled
from embedkit.pipelines.grep.home import Home
from embedkit.pipelines.grep.reading import read_file
from embedkit.pipelines.grep.state import FolderState

LONG_AGO = 1_500_000_000_123_456_789  # ns


def make(root: Path, *names: str, text: str = "words") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        age(path)


def age(path: Path, by: int = 0) -> None:
    os.utime(path, ns=(LONG_AGO + by, LONG_AGO + by))


class Noted:
    """A folder, and what is noted of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = Home(root.parent / "home", root)
        self.home.make()
        self.state = FolderState(self.home.files, writable=True)
        self.times = 0

    def look(self, scope: str = "") -> Changes:
        return find_changes(self.home, self.state, scope)

    def note(self, changes: Changes) -> None:
        """Note all as read, as a refresh does, and let every folder's time be one of long ago."""
        self.state.forget_files(changes.gone)
        self.state.note_folders(changes.listings, changes.gone_folders)
        self.state.set_meta("above", changes.above)
        files = [read_file(self.home, folder, entry.name, None) for folder, entry in changes.changed]
        self.state.note_files([each.file for each in files if each is not None])

    def settle(self) -> None:
        self.times += 1  # a folder that has changed has another time
        for folder, _, _ in os.walk(self.root):
            age(Path(folder), self.times)
        self.note(self.look())
        found = self.look()
        assert (names(found), found.gone, found.listings) == ([], [], [])


def names(changes: Changes) -> list[str]:
    return sorted(f"{folder}/{entry.name}".lstrip("/") for folder, entry in changes.changed)


@pytest.fixture
def noted(tmp_path: Path) -> Noted:
    make(tmp_path / "notes", "a.md", "b.py", "sub/c.md", "sub/deep/d.md", "other/e.md")
    found = Noted(tmp_path / "notes")
    assert len(names(found.look())) == 5
    found.settle()
    return found


def test_a_file_with_another_size_or_time_has_changed(noted: Noted) -> None:
    make(noted.root, "a.md", text="other")
    age(noted.root / "a.md", 1)
    make(noted.root, "sub/deep/d.md", text="longer words")
    assert names(noted.look()) == ["a.md", "sub/deep/d.md"]
    assert noted.look().files == 5
    assert names(noted.look("sub")) == ["sub/deep/d.md"]


def test_new_and_vanished_files_and_folders_are_found(noted: Noted) -> None:
    make(noted.root, "new.md", "sub/new/f.md", "sub/new/in/g.md")
    (noted.root / "b.py").unlink()
    (noted.root / "other" / "e.md").unlink()
    (noted.root / "other").rmdir()
    found = noted.look()
    assert names(found) == ["new.md", "sub/new/f.md", "sub/new/in/g.md"]
    assert sorted(found.gone) == [("", "b.py"), ("other", "e.md")]
    assert found.gone_folders == ["other"]
    noted.settle()
    (noted.root / "sub").rename(noted.root / "moved")
    found = noted.look()
    assert names(found) == ["moved/c.md", "moved/deep/d.md", "moved/new/f.md", "moved/new/in/g.md"]
    assert sorted(found.gone_folders) == ["sub", "sub/deep", "sub/new", "sub/new/in"]
    assert len(found.gone) == 4


@pytest.mark.parametrize("place", ["", "sub"])
def test_a_changed_ignore_file_changes_what_is_there(noted: Noted, place: str) -> None:
    (noted.root / place / ".ignore").write_text("none\n", encoding="utf-8")
    noted.settle()
    (noted.root / place / ".ignore").write_text("d.md\n", encoding="utf-8")  # the folder's time stays
    age(noted.root / place, noted.times)
    found = noted.look()
    assert (names(found), found.gone) == ([], [("sub/deep", "d.md")])


def test_an_ignore_file_of_the_repository_above_counts(tmp_path: Path) -> None:
    make(tmp_path / "repo" / "notes", "a.md", "b.log")
    (tmp_path / "repo" / ".git").mkdir()
    noted = Noted(tmp_path / "repo" / "notes")
    noted.settle()
    (tmp_path / "repo" / ".gitignore").write_text("*.log\n", encoding="utf-8")
    assert noted.look().gone == [("", "b.log")]


def test_what_changed_a_moment_ago_is_read_again_though_size_and_time_are_the_same(
    noted: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_TICK_NS", 10**12)  # however slow this machine is
    path = noted.root / "a.md"
    path.write_text("first", encoding="utf-8")
    noted.note(noted.look())
    status = path.stat()
    path.write_text("again", encoding="utf-8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # within the same tick of the clock
    assert names(noted.look()) == ["a.md"]


def test_times_of_whole_seconds_settle_later() -> None:
    second = 1_000_000_000
    now = 1_000 * second
    assert settled(now - 60_000_001, now) == now - 60_000_001
    assert settled(now - 10_000_001, now) == UNSETTLED
    assert settled(now - second, now) == UNSETTLED
    assert settled(now - 3 * second, now) == now - 3 * second
    assert settled(now + second // 2, now) == UNSETTLED
    assert settled(now + 100 * second, now) == now + 100 * second  # set by hand


def test_a_file_that_was_left_out_for_what_it_held_is_looked_at_again(noted: Noted) -> None:
    (noted.root / "sub" / "x.bin").write_bytes(b"\0\1")
    age(noted.root / "sub" / "x.bin")
    noted.settle()
    (noted.root / "sub" / "x.bin").write_bytes(b"text now")  # the folder's time stays
    age(noted.root / "sub", noted.times)
    assert names(noted.look()) == ["sub/x.bin"]


def test_a_damaged_state_is_made_anew(noted: Noted) -> None:
    noted.state.close()
    noted.home.files.write_bytes(b"no database at all" * 100)
    reader = FolderState(noted.home.files, writable=False)
    assert reader.files() == {}
    reader.close()
    noted.state = FolderState(noted.home.files, writable=True)
    assert len(names(noted.look())) == 5
