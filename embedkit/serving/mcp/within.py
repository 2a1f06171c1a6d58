"""Reading a file below a root and nothing else, whatever a path says and whoever changes the folder meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

from embedkit.errors import RecordError


def inner_parts(root: Path, path: str) -> tuple[str, ...]:
    """Return the names that lead from a root to what a path says, which may be absolute.

    Raises:
        RecordError: it leads out of the root.
    """
    given = PurePosixPath(path)
    if given.is_absolute():
        if not given.is_relative_to(root.as_posix()):
            raise RecordError(f"{path}: is not in {root}, which is all that is served")
        given = given.relative_to(root.as_posix())
    if ".." in given.parts:
        raise RecordError(f"{path}: a path with .. is not followed. Name the file as seen from {root}")
    if "\0" in path or not given.parts:
        raise RecordError(f"{path!r}: names no file")
    return given.parts


def read_within(root: Path, parts: tuple[str, ...], max_bytes: int) -> bytes:
    """Read a file by the names that lead to it, none of which may be a link.

    Each folder is opened in the one before it, so that no link that is put there meanwhile is followed either.

    Raises:
        RecordError: there is no such file, a link is in the way, it is too large or cannot be read.
    """
    shown = "/".join(parts)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        # O_NONBLOCK: opening a pipe would wait for its writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(parts[-1], flags, dir_fd=folder)
    except OSError as exc:
        raise _refused(root, parts, shown, exc) from exc
    finally:
        os.close(folder)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise RecordError(f"{shown}: is no file. Name a file")
    with os.fdopen(descriptor, "rb") as stream:
        if status.st_size > max_bytes:
            raise RecordError(
                f"{shown}: has {status.st_size / 1e6:,.1f} MB; files of more than {max_bytes / 1e6:g} MB are not served"
            )
        return stream.read(max_bytes)


def _refused(root: Path, parts: tuple[str, ...], shown: str, exc: OSError) -> RecordError:
    if exc.errno in (errno.ELOOP, errno.ENOTDIR) and _has_link(root, parts):
        return RecordError(f"{shown}: is a link or lies behind one, and links are not followed")
    return RecordError(f"{shown}: cannot be read ({exc.strerror}). Take a path from the answer of a search")


def _has_link(root: Path, parts: tuple[str, ...]) -> bool:
    return any(root.joinpath(*parts[:count]).is_symlink() for count in range(1, len(parts) + 1))
