"""The open handles of one index file, which threads borrow: an open `Index` has one SQLite connection and one snapshot."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Condition
from typing import NamedTuple

from embedkit.errors import IndexFileError
from indexes import GatherOptions, Searchable, SharedScans, is_sharded, open_index
from indexes.sharded.shards_file import SHARDS
from indexes.storage.layout import database_path

# Of SQLite's own cache; the system's holds the file, for all handles together.
CACHE_BYTES = 8 * 2**20
_OPENINGS = 10  # beside a folder in which names change all the time


class FileIdentity(NamedTuple):
    """What tells one index file from another that took its place.

    A file that is open keeps its inode number to itself. Where the folder cannot be written and no writer is at work, SQLite takes
    the file for one that never changes; what changes it shows in its time and in the log that a writer has.
    """

    device: int
    inode: int
    has_log: bool | None = None
    changed: int | None = None


def identity_of(folder: Path) -> FileIdentity | None:
    """Return what the index in a folder is now; None where there is none. One in shards is what names them."""
    path = folder / SHARDS if is_sharded(folder) else database_path(folder)
    try:
        found = path.stat()
    except OSError:
        return None
    if os.access(folder, os.W_OK):
        return FileIdentity(found.st_dev, found.st_ino)
    has_log = path.with_name(path.name + "-wal").exists()
    return FileIdentity(found.st_dev, found.st_ino, has_log, None if has_log else found.st_mtime_ns)


def _names_changed(folder: Path) -> int | None:
    """Return when a name in the folder above was last made, renamed or removed; None where it cannot be told."""
    try:
        return folder.absolute().parent.stat().st_mtime_ns
    except OSError:
        return None


class ReplacedError(Exception):
    """Another index has taken the place of this one."""


class Handles:
    """At most `most` handles of one index file, opened as they are needed; the first is always there.

    A handle that is not in use holds no read transaction, which would keep a writer's log from being taken in.
    """

    def __init__(
        self, folder: Path, *, most: int, gathering: GatherOptions | None = None, allow_regex: bool = False
    ) -> None:
        """Open the first; `gathering` says how shards are searched, `allow_regex` whether filters may use regular expressions.

        Raises:
            ReplacedError: the index was replaced meanwhile.
            IndexFileError: there is none, or it is damaged.
        """
        self.folder, self._most, self._gathering, self._allow_regex = folder, most, gathering, allow_regex
        self._changed = Condition()
        self._idle: list[Searchable] = []
        self._open = 0
        self._retired = False
        self._scans = SharedScans()
        self.identity = identity_of(folder)
        self._idle.append(self._opened())  # where there is none, it says so
        self._open = 1

    def _opened(self) -> Searchable:
        for _ in range(_OPENINGS):
            names = _names_changed(self.folder)
            try:
                index = open_index(self.folder, gathering=self._gathering, allow_regex=self._allow_regex)
            except (IndexFileError, OSError) as exc:
                raise self._explained(exc) from exc
            if identity_of(self.folder) != self.identity:
                index.close()
                raise ReplacedError
            # Another index may have stood here for just that moment; then folders beside this one were renamed.
            if _names_changed(self.folder) == names:
                break
            index.close()
        else:
            raise ReplacedError
        index.limit_cache(CACHE_BYTES)
        index.share_scans(self._scans)
        index.rest()
        return index

    def _explained(self, exc: Exception) -> Exception:
        return ReplacedError() if identity_of(self.folder) != self.identity else exc

    def take(self, *, may_open: bool = True) -> Searchable:
        """Borrow a handle at the newest commit, waiting while all are lent; without `may_open` one of those that are open.

        Raises:
            ReplacedError: the index was replaced meanwhile.
            IndexFileError: it is damaged, or being removed.
        """
        index = self._lent(may_open=may_open)
        if index is None:
            index = self._one_more()
        try:
            index.follow()
        except BaseException as exc:
            self._lose(index)
            if isinstance(exc, IndexFileError | OSError):
                raise self._explained(exc) from exc
            raise
        return index

    def _one_more(self) -> Searchable:
        """Open a handle; where that fails, as while the folder is being removed, wait for one of the others."""
        try:
            return self._opened()
        except BaseException as exc:
            self._lose(None)
            with self._changed:
                alone = not self._open
            if alone or not isinstance(exc, IndexFileError):
                raise
        index = self._lent(may_open=False)
        if index is None:  # the others were lost, too
            self._lose(None)
            raise ReplacedError
        return index

    def _lent(self, *, may_open: bool) -> Searchable | None:
        with self._changed:
            while not self._idle:
                if self._open < self._most and (may_open or not self._open):
                    self._open += 1
                    return None
                self._changed.wait()
            return self._idle.pop()

    def _lose(self, index: Searchable | None) -> None:
        if index is not None:
            index.close()
        with self._changed:
            self._open -= 1
            self._changed.notify()

    def give(self, index: Searchable) -> None:
        """Give a handle back."""
        try:
            index.rest()
        except IndexFileError:
            self._lose(index)
            return
        with self._changed:
            if not self._retired:
                self._idle.append(index)
                self._changed.notify()
                return
        self._lose(index)

    def retire(self) -> None:
        """Close the handles, those that are lent once they come back."""
        with self._changed:
            self._retired = True
            idle, self._idle = self._idle, []
        for index in idle:
            self._lose(index)
