"""What has changed in a folder since its files were read, by names, sizes and times.

1. A folder whose time is as it was holds the names that it held: its files are looked at one by one, and it is not listed.
2. A folder with another time is listed again, under the rules of its ignore files, and so are the folders new in it.
3. Where an ignore file has changed, everything is listed.
A file or folder changed so shortly before a look that it may change again within the same tick of the clock is noted with no
time, so that the next look reads it again (as git does: https://git-scm.com/docs/racy-git).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedkit.data.ignoring import files_above
from embedkit.data.walking import FileEntry, Listing, Walker
from embedkit.pipelines.grep.home import Home
from embedkit.pipelines.grep.state import FolderSeen, FolderState, joined

# What a file system's clock may tick in; a time of whole seconds is taken for one of those that keep no finer ones.
_TICK_NS, _COARSE_TICK_NS = 50_000_000, 2_000_000_000
_FUTURE_NS = 60_000_000_000  # a time as far ahead was set by hand, and tells changes as well as any other
UNSETTLED = -1  # in place of a time that tells nothing


def settled(mtime_ns: int, now_ns: int) -> int:
    """Return a time, or UNSETTLED where something may change without changing it."""
    tick = _COARSE_TICK_NS if mtime_ns % 1_000_000_000 == 0 else _TICK_NS
    return UNSETTLED if now_ns - tick < mtime_ns < now_ns + _FUTURE_NS else mtime_ns


@dataclass
class Changes:
    """What is to be read, what is gone, and the folders that were listed."""

    changed: list[tuple[str, FileEntry]] = field(default_factory=list)  # folder, file
    gone: list[tuple[str, str]] = field(default_factory=list)  # folder, name
    listings: list[Listing] = field(default_factory=list)
    gone_folders: list[str] = field(default_factory=list)
    above: str = ""  # the ignore files above the root, for the next look
    files: int = 0  # that are there


def find_changes(home: Home, state: FolderState, scope: str = "") -> Changes:
    """Compare a home's folder, or what of it is within a path, with what was noted of it."""
    look = _Look(home, state, scope)
    look.take()
    return look.changes


class _Look:
    """One look at a folder."""

    def __init__(self, home: Home, state: FolderState, scope: str) -> None:
        self.home, self.scope = home, scope
        self.folders, self.files, self.skipped = state.folders(), state.files(), state.skipped()
        self.changes = Changes(above=_ignore_files_above(home))
        self.relist = not self.folders or state.meta("above") != self.changes.above
        self.walker = Walker(home.root, home.walking)
        self.now = time.time_ns()
        self.inner: dict[str, list[str]] | None = None

    def take(self) -> None:
        if self.home.only:
            self._compare(self._only())
            return
        if not self.relist and not self._ignore_files_changed():
            for path, seen in self.folders.items():
                if self._in_scope(path):
                    self._look_at(path, seen)
            return
        walked = set()
        for listing in self.walker.walk():
            walked.add(listing.path)
            self._compare(listing)
        for path in self.folders.keys() - walked:
            self._forget(path)

    def _in_scope(self, path: str) -> bool:
        return not self.scope or path == self.scope or path.startswith(f"{self.scope}/")

    def _ignore_files_changed(self) -> bool:
        root = str(self.home.root)
        for path, seen in self.folders.items():
            for entry in seen.ignore_files:
                try:
                    status = os.stat(f"{root}/{joined(path, entry.name)}")  # noqa: PTH116 (a third of the time)
                except OSError:
                    return True
                if (status.st_size, status.st_mtime_ns) != (entry.num_bytes, entry.mtime_ns):
                    return True
        return False

    def _look_at(self, path: str, seen: FolderSeen) -> None:
        folder = f"{self.home.root}/{path}" if path else str(self.home.root)
        try:
            status = os.stat(folder)  # noqa: PTH116 (as above)
        except OSError:
            status = None
        if status is None and path:  # its parent's listing says that it is gone
            return
        prefix = folder + "/"
        if status is None or status.st_mtime_ns != seen.mtime_ns or self._skipped_changed(path, prefix):
            self._list_again(path)
            return
        known = self.files.get(path, {})
        self.changes.files += len(known)
        changed, stat = self.changes.changed, os.stat
        for name, noted in known.items():
            try:
                found = stat(prefix + name)
            except OSError:
                self.changes.gone.append((path, name))
                continue
            if noted != (found.st_size, found.st_mtime_ns):
                changed.append((path, FileEntry(name, found.st_size, found.st_mtime_ns)))

    def _skipped_changed(self, path: str, prefix: str) -> bool:
        """Say whether a file that was left out for what it holds may hold something else now."""
        for name, noted in self.skipped.get(path, {}).items():
            try:
                found = os.stat(prefix + name)  # noqa: PTH116 (as above)
            except OSError:
                return True
            if noted != (found.st_size, found.st_mtime_ns):
                return True
        return False

    def _list_again(self, path: str) -> None:
        rules = self.walker.rules(path)
        listing = self.walker.list(path, rules)
        self._compare(listing)
        for name in listing.folders:
            inner = joined(path, name)
            if inner not in self.folders:
                for new in self.walker.walk(inner):
                    self._compare(new)
        for inner in self._inner(path):
            if inner.rpartition("/")[2] not in listing.folders:
                for known in [each for each in self.folders if each == inner or each.startswith(f"{inner}/")]:
                    self._forget(known)

    def _inner(self, path: str) -> list[str]:
        """Return the folders that were known in a folder."""
        if self.inner is None:
            self.inner = {}
            for each in self.folders:
                if each:
                    self.inner.setdefault(each.rpartition("/")[0], []).append(each)
        return self.inner.get(path, [])

    def _compare(self, listing: Listing) -> None:
        known = self.files.get(listing.path, {})
        self.changes.files += len(listing.files)
        for entry in listing.files:
            if known.get(entry.name) != (entry.num_bytes, entry.mtime_ns):
                self.changes.changed.append((listing.path, entry))
        there = {entry.name for entry in listing.files}
        self.changes.gone += [(listing.path, name) for name in known if name not in there]
        skipped = [replace(each, mtime_ns=settled(each.mtime_ns, self.now)) for each in listing.skipped]
        time_ns = settled(listing.mtime_ns, self.now)
        self.changes.listings.append(replace(listing, mtime_ns=time_ns, skipped=skipped))

    def _forget(self, path: str) -> None:
        self.changes.gone_folders.append(path)
        self.changes.gone += [(path, name) for name in self.files.get(path, {})]

    def _only(self) -> Listing:
        listing = Listing("")
        path = self.home.root / self.home.only
        try:
            status = path.stat()
        except OSError:  # the caller has seen it: it went just now
            return listing
        listing.files.append(FileEntry(self.home.only, status.st_size, status.st_mtime_ns))
        return listing


def _ignore_files_above(home: Home) -> str:
    return json.dumps(list(_statuses(files_above(home.root)))) if home.walking.ignore else "[]"


def _statuses(paths: list[Path]) -> Iterator[tuple[str, int, int]]:
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        yield str(path), status.st_size, status.st_mtime_ns
