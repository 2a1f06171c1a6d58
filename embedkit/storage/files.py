"""The one way to write a whole file or folder: a reader finds the old one or the new one, never a part.

1. Write beside the target, under a temporary name that no other writer has.
2. Flush to disk what was written, rename it, and flush the folder that holds the name.
Whatever fails takes the temporary file or folder away again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from embedkit.errors import OutputError

FULL = (errno.ENOSPC, errno.EDQUOT)  # what the system says where there is no room
# They lead to what this process has open, which may be a file: renaming another one over it would lose what it holds.
_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file, with line ends as they are in the text.

    Raises:
        OutputError: as `atomic_file`.
    """
    content = text.encode("utf-8")
    with atomic_file(path) as stream:
        stream.write(content)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Give a stream to write a file's bytes to, which becomes `path` when the block ends without an error.

    A link stays, and what it points to is replaced; so does the mode of a file that was there. A pipe or a device, such as
    /dev/stdout or /dev/null, is written to as it is.

    Raises:
        OutputError: the folder is missing or cannot be written to, or the disk is full.
    """
    # What was printed to a redirected /dev/stdout stays before it.
    mode: Literal["ab", "wb"] = "ab" if is_stream(path) else "wb"
    with atomic_path(path) as draft, draft.open(mode) as stream:
        yield stream


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a name for a library to write a file under, which becomes `path` as with `atomic_file`.

    Raises:
        OutputError: as `atomic_file`.
    """
    if is_stream(path):
        with output_errors(path, "Check where it leads"):
            yield Path(path)
        return
    with output_errors(path):
        target = Path(os.path.realpath(path))
        draft = _beside(target)
        mode = _create(draft, target)
        try:
            yield draft
            if stat.S_IMODE(draft.stat().st_mode) != mode:
                draft.chmod(mode)
            put_in_place(draft, target)
        finally:
            draft.unlink(missing_ok=True)


def is_stream(path: str | Path) -> bool:
    """Say whether a path leads to something that is written to but not replaced: a pipe, a device, an open file of this process."""
    path = Path(path)
    if path.as_posix().startswith(_STREAMS):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:  # there is nothing yet; what else is wrong, writing will tell
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _create(draft: Path, target: Path) -> int:
    """Make an empty file, and return the mode that it is to have: that of the file it replaces, else what the umask says."""
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    replaced = target if target.is_file() else draft
    return stat.S_IMODE(replaced.stat().st_mode)


@contextmanager
def new_folder(target: str | Path) -> Iterator[Path]:
    """Give a folder to write into, which takes its final name when the block ends without an error.

    Raises:
        OutputError: the target exists and is not an empty folder, its path is not UTF-8, or the disk is full.
    """
    import shutil  # 10 ms, which a command that writes no folder need not wait for

    path = Path(os.path.realpath(target))
    check_utf8(path, target)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(f"{target}: already exists. Choose another name, or remove it first")
    with output_errors(target):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = _beside(path)
        draft.mkdir()
        try:
            yield draft
            for written in draft.rglob("*"):
                sync(written)
            put_in_place(draft, path)  # takes the place of an empty folder, too
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def check_utf8(path: Path, shown: str | Path) -> None:
    """Refuse a place for tokenizers and weights, whose libraries open UTF-8 names only.

    Raises:
        OutputError: a name in the path is not UTF-8.
    """
    if not is_utf8(path):
        raise OutputError(
            f"{shown}: a name in this path is not UTF-8, and tokenizers and weights cannot be written there. Choose another"
        )


def is_utf8(name: str | Path) -> bool:
    """Say whether a word of the command line or a path is text: its bytes may be anything."""
    try:
        str(name).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _beside(path: Path) -> Path:
    """Return a name in the same folder that nobody else has; only the start of a long name fits into it."""
    return path.with_name(f".{path.name[:40]}.{os.urandom(6).hex()}.tmp")


def remove_drafts(folder: Path) -> None:
    """Remove what writers left in a folder when they were killed; no other process may be writing there."""
    import shutil

    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def put_in_place(written: Path, path: Path) -> None:
    """Rename a file or folder in its own file system, so that after a power cut the name leads to all of its content.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    sync(written)
    written.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def output_errors(path: str | Path, advice: str = "") -> Iterator[None]:
    """Turn what the system raises about a write into an OutputError; `advice` says what to do about it.

    Raises:
        OutputError: something within raised an OSError.
    """
    try:
        yield
    except OSError as exc:
        if not advice:
            todo = (
                "make room and run the same command again"
                if exc.errno in FULL
                else "check that its folder exists and is yours"
            )
            advice = f"Nothing there was changed; {todo}"
        raise OutputError(f"{path}: cannot be written ({exc.strerror or exc}). {advice}") from exc
