"""One writer at a time: a lock on a file in the index's folder, which the system drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from embedkit.errors import IndexBusyError, IndexFileError

from .layout import LOCK_NAME


class WriterLock:
    """Held from construction until `release`.

    Raises:
        IndexBusyError: another writer holds it; the message names its process.
        IndexFileError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_NAME
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise IndexFileError(
                f"{folder}: cannot be written ({exc.strerror}). Check the permissions of the folder and the disk"
            ) from exc
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise IndexBusyError(
                f"{folder}: process {holder} is writing to this index; an index has one writer at a time. "
                "Wait for it to end, or stop it; searching goes on meanwhile"
            ) from exc
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
