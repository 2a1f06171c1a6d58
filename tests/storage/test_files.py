"""A file or folder is there whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from embedkit.errors import OutputError
from embedkit.storage.files import (
    atomic_file,
    atomic_path,
    new_folder,
    output_errors,
    put_in_place,
    remove_drafts,
    write_text,
)
from tests.full_disk import files_limited_to


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """What was flushed to disk, in order: whether it was a folder, and its inode."""
    found: list[tuple[bool, int]] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        status = os.fstat(descriptor)
        found.append((stat.S_ISDIR(status.st_mode), status.st_ino))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return found


def test_a_file_is_replaced_by_what_was_written_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "long old text")
    write_text(path, "naïve\r\nnew\n")
    assert path.read_bytes() == "naïve\r\nnew\n".encode()
    with atomic_file(path) as stream:
        stream.write(b"\0\xff")
        assert path.read_bytes() != b"\0\xff"
    assert path.read_bytes() == b"\0\xff"
    with atomic_path(path) as draft:
        draft.write_bytes(b"by name")
    assert path.read_bytes() == b"by name"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write_half(target: Path) -> None:
        with atomic_file(target) as stream:
            stream.write(b"half")
            raise error

    def fill_half(target: Path) -> None:
        with new_folder(target) as draft:
            (draft / "half").write_bytes(b"half")
            raise error

    with pytest.raises(error):
        write_half(path)
    with pytest.raises(error):
        write_half(tmp_path / "new")
    with pytest.raises(error):
        fill_half(tmp_path / "folder")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "a lone surrogate: \ud800")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_killed_writer_leaves_the_old_file_and_a_draft_that_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    program = (
        "import os, signal, sys\n"
        "from embedkit.storage.files import atomic_file, new_folder\n"
        "with new_folder(sys.argv[1] + '/f') as draft, atomic_file(sys.argv[1] + '/a') as stream:\n"
        "    stream.write(b'half'); stream.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(names(tmp_path)) == 3
    remove_drafts(tmp_path)
    assert names(tmp_path) == ["a"]


def test_the_file_is_on_disk_before_its_name_and_the_name_before_the_end(
    tmp_path: Path, synced: list[tuple[bool, int]]
) -> None:
    path = tmp_path / "a"
    write_text(path, "x")
    assert synced == [(False, path.stat().st_ino), (True, tmp_path.stat().st_ino)]


def test_a_folder_is_on_disk_with_all_that_is_in_it(tmp_path: Path, synced: list[tuple[bool, int]]) -> None:
    target = tmp_path / "model"
    with new_folder(target) as draft:
        (draft / "1_Pooling").mkdir()
        (draft / "1_Pooling" / "config.json").write_bytes(b"{}")
        assert not target.exists()
    inner = target / "1_Pooling"
    assert set(synced[:-2]) == {
        (True, inner.stat().st_ino),
        (False, (inner / "config.json").stat().st_ino),
    }
    assert synced[-2:] == [(True, target.stat().st_ino), (True, tmp_path.stat().st_ino)]


def test_what_is_put_in_place_is_flushed_with_the_folder_it_moves_to(
    tmp_path: Path, synced: list[tuple[bool, int]]
) -> None:
    (tmp_path / "to").mkdir()
    written = tmp_path / "written"
    written.write_bytes(b"x")
    put_in_place(written, tmp_path / "to" / "here")
    assert synced == [
        (False, (tmp_path / "to" / "here").stat().st_ino),
        (True, (tmp_path / "to").stat().st_ino),
    ]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_are_what_the_umask_says(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        write_text(tmp_path / "a", "x")
        with new_folder(tmp_path / "f"):
            pass
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o777 & ~mask


def test_a_file_that_is_replaced_keeps_its_mode_whatever_a_library_made_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with atomic_path(path) as draft:
        draft.chmod(0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "a"
    target.write_bytes(b"old")
    link, dangling, folder = (tmp_path / name for name in ("link", "dangling", "folder"))
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "real" / "b")
    folder.symlink_to(tmp_path / "real" / "f")
    write_text(link, "new")
    write_text(dangling, "other")
    with new_folder(folder) as draft:
        (draft / "x").write_bytes(b"")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert dangling.is_symlink()
    assert dangling.read_bytes() == b"other"
    assert folder.is_symlink()
    assert names(folder) == ["x"]
    assert names(tmp_path / "real") == ["a", "b", "f"]


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_text(pipe, "through it")
    reader.join(timeout=180)
    assert read == [b"through it"]
    assert pipe.is_fifo()
    assert names(tmp_path) == ["pipe"]


def test_a_device_is_written_to_and_stays() -> None:
    write_text("/dev/null", "away")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(
        OutputError,
        match=r"^/dev/full: cannot be written \(No space left on device\)\. Check where it leads$",
    ):
        write_text("/dev/full", "x")
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_gets_the_file_behind_what_was_printed(tmp_path: Path, kind: str) -> None:
    program = (
        "import sys\n"
        "from embedkit.storage.files import write_text\n"
        "print('table', flush=True)\n"
        "write_text('/dev/stdout', '<html>')\n"
    )
    output = tmp_path / "out"
    with output.open("wb") as stream:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=stream if kind == "file" else subprocess.PIPE,
            check=True,
        )
    assert (output.read_bytes() if kind == "file" else done.stdout) == b"table\n<html>"
    assert names(tmp_path) == ["out"]


def test_a_full_disk_is_said_so_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    message = (
        r"a: cannot be written \(No space left on device\)\. "
        r"Nothing there was changed; make room and run the same command again"
    )
    with pytest.raises(OutputError, match=message):
        write_text(path, "new")
    with pytest.raises(OutputError, match="b" + message[1:]), new_folder(tmp_path / "b"):
        pass
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_write_that_breaks_off_half_way_loses_nothing(tmp_path: Path) -> None:
    """Here the write itself fails, not the flush at the end."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with (
        files_limited_to(50_000),
        pytest.raises(OutputError, match=r"a: cannot be written \(File too large\)"),
    ):
        write_text(path, "x" * 100_000)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_what_cannot_be_written_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError,
        match=r"none/a: cannot be written \(No such file or directory\)\. "
        r"Nothing there was changed; check that its folder exists and is yours",
    ):
        write_text(tmp_path / "none" / "a", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"folder: cannot be written \(Is a directory\)"):
        write_text(tmp_path / "folder", "x")
    assert names(tmp_path) == ["folder"]
    with (
        pytest.raises(OutputError, match=r"^here: cannot be written \(gone\)\. Look$"),
        output_errors("here", "Look"),
    ):
        raise OSError("gone")


def test_long_names_can_be_written(tmp_path: Path) -> None:
    """255 bytes are what a file's name may have, and the temporary one is no longer."""
    name = "ü" * 127
    write_text(tmp_path / name, "x")
    assert names(tmp_path) == [name]


def test_of_two_writers_at_once_one_wins_and_neither_sees_the_other(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_file(path) as first, atomic_file(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["a"]


def test_a_new_folder_takes_the_place_of_an_empty_one_alone(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with new_folder(target) as draft:
        (draft / "a.txt").write_bytes(b"x")
    with (
        pytest.raises(OutputError, match=r"model: already exists\. Choose another name, or remove it first"),
        new_folder(target),
    ):
        pass
    other = tmp_path / "other"
    other.mkdir()
    with new_folder(other) as draft:
        (draft / "b.txt").write_bytes(b"x")
    assert names(other) == ["b.txt"]
    with (
        pytest.raises(OutputError, match=r"b: cannot be written \(File exists\)"),
        new_folder(target / "a.txt" / "b"),
    ):
        pass
    assert names(target) == ["a.txt"]
    assert names(tmp_path) == ["deep", "other"]
