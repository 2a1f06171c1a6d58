"""The SQLite side of an index: its schema and the statements on documents, segments and tombstones.

A row is a vector: one passage of one document. Rows are numbered from 1 on and a number is never used again, so that
segments, tombstones, the text index and the ANN structure can all name rows without renumbering each other.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.errors import IndexFileError

from .segment import RowArray, SegmentInfo

DATABASE_NAME = "index.sqlite"
FORMAT_VERSION = 1
BUSY_SECONDS = 30
ANN_CHUNK_BYTES = 16 * 2**20

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE documents (
    doc_key INTEGER PRIMARY KEY, doc_id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, text TEXT NOT NULL,
    metadata TEXT NOT NULL, content_hash BLOB NOT NULL, source TEXT NOT NULL);
CREATE TABLE passages (
    row INTEGER PRIMARY KEY, doc_key INTEGER NOT NULL, number INTEGER NOT NULL,
    start INTEGER NOT NULL, stop INTEGER NOT NULL);
CREATE INDEX passages_of_document ON passages (doc_key);
CREATE TABLE segments (
    name TEXT PRIMARY KEY, first_row INTEGER NOT NULL, rows INTEGER NOT NULL,
    num_bytes INTEGER NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE tombstones (row INTEGER PRIMARY KEY);
CREATE TABLE fields (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE VIEW passage_texts AS
    SELECT row, title, CASE WHEN start = 0 AND stop = -1 THEN text ELSE substr(text, start + 1, stop - start) END
        AS text
    FROM passages JOIN documents USING (doc_key);
CREATE VIRTUAL TABLE text_index USING fts5(
    title, text, content='passage_texts', content_rowid='row', tokenize='porter unicode61 remove_diacritics 2');
"""


@dataclass(frozen=True, kw_only=True)
class AnnInfo:
    """What the database knows of the ANN file, and how to search it.

    It covers `rows` rows, all those up to `last_row` that there were. `curve` is what `tune` measured.
    """

    name: str
    kind: str
    rows: int
    last_row: int
    num_bytes: int
    checksums: Sequence[int]  # CRC-32 of each ANN_CHUNK_BYTES
    knobs: Mapping[str, int]
    target_recall: float | None = None
    curve: Sequence[Mapping[str, Any]] = ()  # Any: numbers and knobs, see tuning.py

    def to_json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__}, default=list)

    @classmethod
    def from_json(cls, text: str) -> AnnInfo:
        return cls(**json.loads(text))


def tombstone_sum(rows: RowArray) -> int:
    """Sum a mix of the row numbers, so that one changed tombstone is noticed (SplitMix64's finaliser)."""
    mixed = rows.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return int(np.bitwise_xor.reduce(mixed ^ (mixed >> np.uint64(31)))) if len(rows) else 0


def checked(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x} {text}"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what SQLite raises about a file into an IndexFileError that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as exc:
        text = str(exc)
        if "full" in text:
            advice = "The disk is full: make room and run the same command again; nothing that was committed is lost"
        elif "readonly" in text or "read-only" in text:
            advice = "The index is read-only: check the permissions of its folder and files"
        elif "locked" in text or "busy" in text:
            advice = "Another process holds the database: run the command again when it has ended"
        else:
            advice = (
                f"Check the permissions and the disk, or run: embedkit index verify --index {path.parent}"
            )
        raise IndexFileError(f"{path}: SQLite says {text!r}. {advice}") from exc
    except sqlite3.DatabaseError as exc:
        raise IndexFileError(
            f"{path}: SQLite says {str(exc)!r}: the database is damaged. "
            f"Run: embedkit index verify --index {path.parent}"
        ) from exc


class Database:
    """One connection to an index's database. Methods do not begin or end transactions; `transaction` does."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        """Open a database that is there, and check its format version.

        Raises:
            IndexFileError: it cannot be read, is no index, or is of a newer version.
        """
        self.path = path
        with reading(path):
            self._connection = self._connect(writable)
            try:
                version = self.meta("format_version")
            except sqlite3.OperationalError as exc:
                self.close()
                raise IndexFileError(
                    f"{path}: SQLite says {str(exc)!r}; an index's database has a table 'meta'. "
                    "Name the folder that embedkit index build made"
                ) from exc
        if version != FORMAT_VERSION:
            self.close()
            newer = isinstance(version, int) and version > FORMAT_VERSION
            raise IndexFileError(
                f"{path.parent}: index format version {version}; this embedkit reads up to {FORMAT_VERSION}. "
                + ("Update embedkit, or build the index anew" if newer else "Build the index anew")
            )

    def _connect(self, writable: bool) -> sqlite3.Connection:
        address = f"{self.path.absolute().as_uri()}?mode={'rw' if writable else 'ro'}"
        wal = self.path.with_name(self.path.name + "-wal")
        if not writable and not os.access(self.path.parent, os.W_OK) and not wal.exists():
            address += (
                "&immutable=1"  # a folder that cannot be written holds no shared memory file for the log
            )
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
        )
        if writable:
            # Every commit reaches the disk before it returns: a power cut takes back nothing that was reported.
            connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -65536")  # 64 MB: random look-ups of a million documents
        return connection

    @staticmethod
    def create(
        path: Path, settings: str, *, fill: Callable[[sqlite3.Connection], None] | None = None
    ) -> None:
        """Make a new database in one step: it is there whole, or not at all. `fill` puts in more than the settings."""
        temporary = path.with_name(path.name + ".new")
        for old in path.parent.glob(temporary.name + "*"):
            old.unlink()
        with reading(path):
            connection = sqlite3.connect(temporary, isolation_level=None)
            try:
                # Readers go on with their snapshot while a writer commits.
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript("BEGIN;" + _SCHEMA)
                values = {
                    "format_version": FORMAT_VERSION,
                    "settings": checked(settings),
                    "next_row": 1,
                    "next_file": 1,
                }
                connection.executemany(
                    "INSERT INTO meta VALUES (?, ?)", [*values.items(), ("tombstone_sum", "0")]
                )
                if fill is not None:
                    fill(connection)
                connection.execute("COMMIT")
            finally:
                connection.close()  # takes the log into the file and removes it
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)

    def close(self) -> None:
        self._connection.close()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:  # Any: SQLite's values
        return self._connection.execute(statement, values)

    def executemany(self, statement: str, values: Iterable[Sequence[Any]]) -> None:  # Any: SQLite's values
        self._connection.executemany(statement, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done within, or nothing of it."""
        with reading(self.path):
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self.execute("ROLLBACK")
                raise

    def begin_snapshot(self) -> None:
        """Start (again) a read transaction: what later commits change is not seen until the next call."""
        with reading(self.path):
            self.end_snapshot()
            self.execute("BEGIN")
            self.execute(
                "SELECT count(*) FROM meta"
            ).fetchone()  # SQLite takes its snapshot at the first read

    def end_snapshot(self) -> None:
        if self._connection.in_transaction:
            self.execute("COMMIT")

    # Values and tables of the whole index

    def meta(self, name: str) -> Any:  # Any: SQLite's values
        found = self.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]

    def set_meta(self, name: str, value: Any) -> None:  # Any: SQLite's values
        self.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )

    def checked_meta(self, name: str) -> str | None:
        """Return a JSON text that `set_checked_meta` stored, or None.

        Raises:
            IndexFileError: it is not what was written.
        """
        value = self.meta(name)
        if value is None:
            return None
        checksum, _, text = str(value).partition(" ")
        if checksum != f"{zlib.crc32(text.encode()):08x}":
            raise IndexFileError(
                f"{self.path}: the entry {name!r} is not what was written. "
                f"Run: embedkit index verify --index {self.path.parent}"
            )
        return text

    def set_checked_meta(self, name: str, text: str) -> None:
        self.set_meta(name, checked(text))

    def ann(self) -> AnnInfo | None:
        text = self.checked_meta("ann")
        return None if text is None else AnnInfo.from_json(text)

    def set_ann(self, info: AnnInfo | None) -> None:
        if info is None:
            self.execute("DELETE FROM meta WHERE name = 'ann'")
        else:
            self.set_checked_meta("ann", info.to_json())

    def segments(self) -> list[SegmentInfo]:
        columns = "name, first_row, rows, num_bytes, checksum"
        return [
            SegmentInfo(*row) for row in self.execute(f"SELECT {columns} FROM segments ORDER BY first_row")
        ]

    def add_segment(self, info: SegmentInfo) -> None:
        values = (info.name, info.first_row, info.rows, info.num_bytes, info.checksum)
        self.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?)", values)

    def remove_segments(self, names: Sequence[str]) -> None:
        self.executemany("DELETE FROM segments WHERE name = ?", [(name,) for name in names])

    def next_file_name(self, pattern: str) -> str:
        """Take the next number for a file; numbers are not used twice, so a reader's old file is never overwritten."""
        number = self.meta("next_file")
        self.set_meta("next_file", number + 1)
        return pattern.format(number)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> RowArray:  # Any: SQLite's values
        """Return the first column of a query as int64."""
        return np.fromiter((row for (row,) in self.execute(statement, values)), np.int64)

    def tombstones(self) -> RowArray:
        """Return the deleted rows, ascending.

        Raises:
            IndexFileError: they are not those that were written.
        """
        rows = self.rows("SELECT row FROM tombstones ORDER BY row")
        if str(tombstone_sum(rows)) != self.meta("tombstone_sum"):
            raise IndexFileError(
                f"{self.path}: the tombstones are not those that were written. "
                f"Run: embedkit index repair --index {self.path.parent}"
            )
        return rows

    def set_tombstone_sum(self) -> None:
        self.set_meta("tombstone_sum", str(tombstone_sum(self.rows("SELECT row FROM tombstones"))))

    def remove_tombstones(self, first: int, last: int) -> None:
        self.execute("DELETE FROM tombstones WHERE row BETWEEN ? AND ?", (first, last))
        self.set_tombstone_sum()

    def vacuum(self) -> None:
        """Rewrite the database without the room that deleted documents left."""
        with reading(self.path):
            self.execute("VACUUM")
            # The log goes into the file, unless a reader is still on an older snapshot: then the last to close does it.
            self.execute("PRAGMA busy_timeout = 0")
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")

    def copy_to(self, other: sqlite3.Connection) -> None:
        """Copy the database, page by page, as this connection sees it."""
        self._connection.backup(other)

    def rebuild_text_index(self) -> None:
        self.execute("INSERT INTO text_index (text_index) VALUES ('rebuild')")

    def count(self, table: str) -> int:
        return int(self.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def field_names(self) -> list[str]:
        return [name for (name,) in self.execute("SELECT name FROM fields ORDER BY name")]
