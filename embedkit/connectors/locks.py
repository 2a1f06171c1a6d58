"""One push at a time: by a lock on a file where a store is a folder, and by a lease that is kept up where it is a server without locks."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from embedkit.errors import StoreError

LEASE = "lease"  # the note that holds it
_BEAT_SECONDS = 2.0  # between two signs of life
_PATIENCE = 5  # of them may be late before a lease counts as left behind


@contextmanager
def file_lock(path: Path, place: str) -> Iterator[None]:
    """Hold a lock on a file, which the system drops when its holder dies.

    Raises:
        StoreError: another process holds it, or the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise StoreError(f"{place}: {exc}. Check the folder and its permissions") from exc
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            raise StoreError(_busy(place, f"process {holder}" if holder else "another process")) from exc
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _busy(place: str, holder: str) -> str:
    return (
        f"{place}: {holder} is pushing to it; a table has one push at a time. Wait for it to end, or stop it"
    )


class Notes(Protocol):
    """Small texts by name, beside the data."""

    def read_note(self, name: str) -> str | None: ...

    def write_note(self, name: str, text: str) -> None: ...

    def remove_note(self, name: str) -> None: ...


class Lease:
    """A note that says who pushes, with a sign of life that changes; clocks need not agree, and one without life is taken over.

    Whoever loses it, as two that write it at the same moment may, is told so by `check`. Rows carry their digests, so what both wrote
    before that is mended by the next push.
    """

    def __init__(
        self, notes: Notes, place: str, *, beat_seconds: float = _BEAT_SECONDS, patience: int = _PATIENCE
    ) -> None:
        self._notes, self._place = notes, place
        self._beat_seconds, self._patience = beat_seconds, patience
        self._token, self._beats = uuid.uuid4().hex, 0
        self._lost = ""
        self._ended = threading.Event()

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Hold the lease, and give it back; yields `check`.

        Raises:
            StoreError: another push holds it.
        """
        if holder := self._living_holder():
            raise StoreError(_busy(self._place, holder))
        self._write()
        time.sleep(self._beat_seconds / 4)  # another that saw no lease, too, has written by now
        self._look()
        self.check()
        beating = threading.Thread(target=self._beat, daemon=True)
        beating.start()
        try:
            yield self.check
        finally:
            self._ended.set()
            beating.join()
            self._give_back()

    def check(self) -> None:
        """Refuse to go on without the lease.

        Raises:
            StoreError: another push has taken it.
        """
        if self._lost:
            raise StoreError(_busy(self._place, self._lost))

    def _read(self) -> dict[str, Any]:  # Any: whatever JSON holds
        text = self._notes.read_note(LEASE)
        return {} if text is None else dict(json.loads(text))

    def _write(self) -> None:
        self._beats += 1
        sign = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid(), "beat": self._beats}
        self._notes.write_note(LEASE, json.dumps(sign))

    def _living_holder(self) -> str:
        first = self._read()
        if not first or (first["host"] == socket.gethostname() and not _runs(int(first["pid"]))):
            return ""
        for _ in range(4 * self._patience):
            time.sleep(self._beat_seconds / 4)
            now = self._read()
            if now != first:
                return _holder(now) if now else ""
        return ""

    def _look(self) -> None:
        now = self._read()
        if now.get("token") != self._token:
            self._lost = _holder(now) if now else "another process"

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            try:
                self._look()
                if self._lost:
                    return
                self._write()
            except StoreError:
                continue  # the store is away, which the push itself will be told

    def _give_back(self) -> None:
        try:
            if self._read().get("token") == self._token:
                self._notes.remove_note(LEASE)
        except StoreError:
            return  # the store is away: without signs of life it is taken over


def _holder(sign: dict[str, Any]) -> str:  # Any: whatever JSON holds
    return f"process {sign['pid']} on {sign['host']}"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
