"""The tables of an index's database, and the making of a new one."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

from embedkit.storage.files import put_in_place

from ..types import VectorKind
from .faults import reading, writing
from .words import TOKENIZER

FORMAT_VERSION = 3  # of a new index with one vector a passage
OTHER_KINDS_VERSION = 4  # of a new one of any other kind: the same tables, other segments
NEWEST_VERSION = 4
# What the text index holds, by format version: the texts as they are, or their words (`index_words`).
TEXT_CONTENT = {1: "passage_texts", 2: "passage_words", 3: "passage_words", 4: "passage_words"}
WITH_PLACES = 3  # the version from which on documents know where their text stands in its file

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE documents (
    doc_key INTEGER PRIMARY KEY, doc_id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, text TEXT NOT NULL,
    metadata TEXT NOT NULL, content_hash BLOB NOT NULL, source TEXT NOT NULL, places TEXT NOT NULL DEFAULT '');
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
"""
ADD_PLACES = "ALTER TABLE documents ADD COLUMN places TEXT NOT NULL DEFAULT ''"
TEXT_SCHEMA = (
    "CREATE VIEW passage_words AS SELECT row, index_words(title) AS title, index_words(text) AS text FROM passage_texts",
    "CREATE VIRTUAL TABLE text_index USING fts5("
    f"title, text, content='passage_words', content_rowid='row', tokenize=\"{TOKENIZER}\")",
)


def checked(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x} {text}"


def unchecked(value: str) -> str | None:
    """Return the text that `checked` took in, or None where it is not what was written."""
    text = value.partition(" ")[2]
    return text if value == checked(text) else None


def version_of(kind: VectorKind) -> int:
    """Return the format version of a new index."""
    return FORMAT_VERSION if kind == "dense" else OTHER_KINDS_VERSION


def create_database(
    path: Path,
    settings: str,
    *,
    version: int = FORMAT_VERSION,
    fill: Callable[[sqlite3.Connection], None] | None = None,
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
            connection.executescript("BEGIN;" + _SCHEMA + ";".join(TEXT_SCHEMA))
            values = {
                "format_version": version,
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
    with writing(path.parent):
        put_in_place(temporary, path)
