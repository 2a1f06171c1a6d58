"""The files of a folder as they were when they were read, so that a look at their sizes and times tells what has changed.

It says of a file that it was read only after the index has committed what was in it: a kill between the two makes the next
call read the file again. What is damaged here is made anew: the index knows its documents by their content.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from embedkit.data.left_out import LeftOut
from embedkit.data.walking import FileEntry, Listing
from embedkit.errors import OutputError

_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE folders (
    path TEXT PRIMARY KEY, mtime_ns INTEGER NOT NULL, ignore_files TEXT NOT NULL, left_out TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    folder TEXT NOT NULL, name TEXT NOT NULL, num_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, digest BLOB NOT NULL,
    problem TEXT NOT NULL, encoding TEXT NOT NULL, PRIMARY KEY (folder, name)) WITHOUT ROWID;
CREATE TABLE skipped (
    folder TEXT NOT NULL, name TEXT NOT NULL, num_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    PRIMARY KEY (folder, name)) WITHOUT ROWID;
"""


FilesByFolder = dict[str, dict[str, tuple[int, int]]]


class FolderSeen(NamedTuple):
    """A folder as it was listed, with the ignore files in it."""

    mtime_ns: int
    ignore_files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True)
class FileRead:
    """A file as it was read; `problem` says why that failed."""

    folder: str
    name: str
    num_bytes: int
    mtime_ns: int
    digest: bytes
    problem: str = ""
    encoding: str = "utf-8"

    @property
    def path(self) -> str:
        return joined(self.folder, self.name)


def joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


class FolderState:
    """The database of one home. Only whoever holds the home's lock may change it."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        self._path = path
        try:
            self._connection = self._open(writable)
        except sqlite3.DatabaseError as exc:
            if not writable:  # nothing is known: as for a home that was never filled
                self._connection = _fresh(sqlite3.connect(":memory:", isolation_level=None))
                return
            with suppress(OSError):
                path.unlink(missing_ok=True)
            try:
                self._connection = self._open(writable)
            except sqlite3.DatabaseError:
                raise _unwritable(path, exc) from exc

    def _open(self, writable: bool) -> sqlite3.Connection:
        if writable and not self._path.exists():
            return _fresh(sqlite3.connect(self._path, isolation_level=None, timeout=10))
        mode = "rw" if writable else "ro"
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=10
        )
        try:
            found = connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
            if found != (_VERSION,):
                raise sqlite3.DatabaseError(f"version {found}")
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        self._connection.close()

    def meta(self, name: str) -> Any:  # Any: SQLite's values
        found = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]

    def set_meta(self, name: str, value: Any) -> None:  # Any: SQLite's values
        self._change("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(name, value)])

    def folders(self) -> dict[str, FolderSeen]:
        found = self._connection.execute("SELECT path, mtime_ns, ignore_files FROM folders")
        return {
            path: FolderSeen(
                mtime, () if ignore == "[]" else tuple(FileEntry(*each) for each in json.loads(ignore))
            )
            for path, mtime, ignore in found
        }

    def files(self) -> FilesByFolder:
        """Return size and time of the files of each folder, by name."""
        return self._by_folder("files")

    def skipped(self) -> FilesByFolder:
        """Return the same of the files that were left out for what they hold."""
        return self._by_folder("skipped")

    def _by_folder(self, table: str) -> FilesByFolder:
        found: FilesByFolder = {}
        for folder, name, num_bytes, mtime in self._connection.execute(
            f"SELECT folder, name, num_bytes, mtime_ns FROM {table}"
        ):
            of_folder = found.get(folder)
            if of_folder is None:
                of_folder = found[folder] = {}
            of_folder[name] = (num_bytes, mtime)
        return found

    def digests(self, folders: Iterable[str]) -> dict[str, bytes]:
        """Return the hash of what was in each file of some folders when it was read, by path."""
        found = self._connection.execute(
            "SELECT folder, name, digest FROM files "
            "WHERE folder IN (SELECT value FROM json_each(?)) AND digest != x''",
            (json.dumps(sorted(set(folders))),),
        )
        return {joined(folder, name): digest for folder, name, digest in found}

    def knows(self, path: str) -> bool:
        """Say whether a folder or file of the root, "" for the root itself, was listed."""
        folder, _, name = path.rpartition("/")
        found = self._connection.execute(
            "SELECT 1 FROM folders WHERE path = ? UNION ALL SELECT 1 FROM files WHERE folder = ? AND name = ?",
            (path, folder, name),
        )
        return found.fetchone() is not None

    def count(self) -> int:
        return int(
            self._connection.execute(
                "SELECT count(*) FROM files WHERE digest != x'' AND problem = ''"
            ).fetchone()[0]
        )

    def problems(self) -> list[str]:
        """Return why files could not be read, by path."""
        found = self._connection.execute(
            "SELECT problem FROM files WHERE problem != '' ORDER BY folder, name"
        )
        return [problem for (problem,) in found]

    def encodings(self) -> dict[str, int]:
        """Count the files that are not UTF-8 by their encodings."""
        return dict(
            self._connection.execute(
                "SELECT encoding, count(*) FROM files WHERE encoding != 'utf-8' GROUP BY encoding"
            )
        )

    def left_out(self) -> LeftOut:
        left = LeftOut()
        for (text,) in self._connection.execute("SELECT left_out FROM folders WHERE left_out != ''"):
            left.add(LeftOut.from_json(text))
        return left

    def note_folders(self, listings: Sequence[Listing], gone: Sequence[str] = ()) -> None:
        """Store folders as they are listed now, and forget those that are gone."""
        stale = [(path,) for path in (*gone, *(listing.path for listing in listings))]
        self._change("DELETE FROM skipped WHERE folder = ?", stale)
        skipped = [
            (listing.path, each.name, each.num_bytes, each.mtime_ns)
            for listing in listings
            for each in listing.skipped
        ]
        self._change("INSERT INTO skipped VALUES (?, ?, ?, ?)", skipped)
        rows = [
            (
                listing.path,
                listing.mtime_ns,
                json.dumps([[each.name, each.num_bytes, each.mtime_ns] for each in listing.ignore_files]),
                listing.left_out.to_json() if listing.left_out else "",
            )
            for listing in listings
        ]
        self._change("INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?)", rows)
        self._change("DELETE FROM folders WHERE path = ?", [(path,) for path in gone])

    def note_files(self, files: Iterable[FileRead]) -> None:
        rows = [
            (each.folder, each.name, each.num_bytes, each.mtime_ns, each.digest, each.problem, each.encoding)
            for each in files
        ]
        self._change("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def note_pending(self, files: Iterable[tuple[str, FileEntry]]) -> None:
        """Note new files that are still to be read."""
        rows = [(folder, each.name) for folder, each in files]
        self._change("INSERT OR IGNORE INTO files VALUES (?, ?, 0, -1, x'', '', 'utf-8')", rows)

    def note_times(self, files: Iterable[tuple[str, FileEntry]]) -> None:
        """Store new times of files whose content is as it was."""
        rows = [(each.num_bytes, each.mtime_ns, folder, each.name) for folder, each in files]
        self._change("UPDATE files SET num_bytes = ?, mtime_ns = ? WHERE folder = ? AND name = ?", rows)

    def forget_files(self, files: Iterable[tuple[str, str]]) -> None:
        self._change("DELETE FROM files WHERE folder = ? AND name = ?", list(files))

    def _change(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:  # Any: SQLite's values
        if not rows:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")
        except sqlite3.DatabaseError as exc:
            with suppress(sqlite3.DatabaseError):
                self._connection.execute("ROLLBACK")
            raise _unwritable(self._path, exc) from exc


def _fresh(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.executescript(f"BEGIN; {_SCHEMA} INSERT INTO meta VALUES ('version', {_VERSION}); COMMIT;")
    return connection


def _unwritable(path: Path, exc: Exception) -> OutputError:
    return OutputError(
        f"{path}: cannot be written (SQLite says {str(exc)!r}). Make room, or set EMBEDKIT_CACHE to another folder"
    )
