"""The SQLite side of an index: the connection, and the statements on segments, tombstones and what is known of the whole.

A row is a vector: one passage of one document. Rows are numbered from 1 on and a number is never used again, so that
segments, tombstones, the text index and the ANN structure can all name rows without renumbering each other.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.errors import IndexFileError

from .ann_info import AnnInfo
from .codes import RowArray
from .faults import reading
from .matching import path_glob, text_matches
from .metadata import strict_json
from .schema import (
    ADD_PLACES,
    FORMAT_VERSION,
    NEWEST_VERSION,
    TEXT_CONTENT,
    TEXT_SCHEMA,
    WITH_PLACES,
    checked,
    unchecked,
)
from .segment_file import SegmentInfo
from .text_rows import stored_text_rows
from .words import index_words

BUSY_SECONDS = 30


def add_functions(connection: sqlite3.Connection) -> None:
    """Give a connection the functions that filters and the views of an index call."""
    connection.create_function("strict_json", 1, strict_json, deterministic=True)
    connection.create_function("index_words", 1, index_words, deterministic=True)
    connection.create_function("path_glob", 2, path_glob, deterministic=True)
    connection.create_function("text_matches", 2, text_matches, deterministic=True)
    connection.execute("PRAGMA trusted_schema = ON")  # some builds of SQLite let no view call a function


def tombstone_sum(rows: RowArray) -> int:
    """Sum a mix of the row numbers, so that one changed tombstone is noticed (SplitMix64's finaliser)."""
    mixed = rows.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return int(np.bitwise_xor.reduce(mixed ^ (mixed >> np.uint64(31)))) if len(rows) else 0


class Database:
    """One connection to an index's database. Methods do not begin or end transactions; `transaction` does."""

    def __init__(self, path: Path, *, writable: bool = False, allow_regex: bool = True) -> None:
        """Open a database that is there, and check its format version; `allow_regex` says whether filters may use regular expressions.

        Raises:
            IndexFileError: it cannot be read, is no index, or is of a newer version.
        """
        self.path, self.allow_regex = path, allow_regex
        with reading(path):
            self._connection = self._connect(writable)
            try:
                _ = self.version
            except sqlite3.OperationalError as exc:
                self.close()
                raise IndexFileError(
                    f"{path}: SQLite says {str(exc)!r}; an index's database has a table 'meta'. "
                    "Name the folder that embedkit index build made"
                ) from exc
            except IndexFileError:
                self.close()
                raise

    @property
    def version(self) -> int:
        """The format version, which a writer may raise while others read.

        Raises:
            IndexFileError: it is a newer one than is known here.
        """
        version = self.meta("format_version")
        if version in TEXT_CONTENT:
            return int(version)
        newer = isinstance(version, int) and version > NEWEST_VERSION
        raise IndexFileError(
            f"{self.path.parent}: index format version {version}; this embedkit reads up to {NEWEST_VERSION}. "
            + ("Update embedkit, or build the index again" if newer else "Build the index again")
        )

    def _connect(self, writable: bool) -> sqlite3.Connection:
        address = f"{self.path.absolute().as_uri()}?mode={'rw' if writable else 'ro'}"
        wal = self.path.with_name(self.path.name + "-wal")
        # A folder that cannot be written takes no shared memory file for the log. An empty log is left where a copy was made of an open index.
        empty = not wal.exists() or not wal.stat().st_size
        if not writable and not os.access(self.path.parent, os.W_OK) and empty:
            address += "&immutable=1"
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
        )
        if writable:
            # Every commit reaches the disk before it returns: a power cut takes back nothing that was reported.
            connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -65536")  # 64 MB: random look-ups of a million documents
        add_functions(connection)
        return connection

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
            _ = self.version  # SQLite takes its snapshot at the first read

    def end_snapshot(self) -> None:
        if self._connection.in_transaction:
            self.execute("COMMIT")

    @property
    def data_version(self) -> int:
        """A number that differs from the one before where another connection has committed between the two transactions."""
        return int(self.execute("PRAGMA data_version").fetchone()[0])

    def limit_cache(self, num_bytes: int) -> None:
        """Keep so much of the file in this connection's own memory."""
        self.execute(f"PRAGMA cache_size = -{num_bytes // 1024}")

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
        text = unchecked(str(value))
        if text is None:
            raise IndexFileError(
                f"{self.path}: the entry {name!r} is not what was written. "
                f"Run: embedkit index verify {self.path.parent}"
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
        """Name the file that is written next; `take_file_name` goes into the transaction that names it."""
        return pattern.format(self.meta("next_file"))

    def take_file_name(self) -> None:
        """Use up the next number for a file. None is used twice, so a reader's old file is never overwritten."""
        self.set_meta("next_file", self.meta("next_file") + 1)

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
                f"Run: embedkit index repair {self.path.parent}"
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

    @property
    def has_places(self) -> bool:
        """Whether documents are stored with where their text stands in its file."""
        return self.version >= WITH_PLACES

    @property
    def places_column(self) -> str:
        """What to select for where the text of a document stands: the column, or '' where there is none."""
        return "places" if self.has_places else "''"

    def rebuild_text_index(self) -> None:
        """Fill the text index again from the documents."""
        self.execute("INSERT INTO text_index (text_index) VALUES ('delete-all')")
        self.executemany(
            "INSERT INTO text_index (rowid, title, text) VALUES (?, ?, ?)",
            stored_text_rows(self.execute, self.version),
        )

    def upgrade(self) -> None:
        """Make an index of an earlier format version one of this: its words, and room for places, which the next build fills."""
        if self.version == 1:
            self.execute("DROP TABLE text_index")
            for statement in TEXT_SCHEMA:
                self.execute(statement)
        if not self.has_places:
            self.execute(ADD_PLACES)
        had_texts = self.version == 1
        self.set_meta("format_version", FORMAT_VERSION)
        if had_texts:
            self.rebuild_text_index()

    def count(self, table: str) -> int:
        return int(self.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def field_names(self) -> list[str]:
        return [name for (name,) in self.execute("SELECT name FROM fields ORDER BY name")]
