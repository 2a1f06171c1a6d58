"""verify(): read all of an index and name what is not as it was written.

1. SQLite's own integrity check, the format version and the settings.
2. Every document against its hash, every field of the text index against the documents.
3. Every block of every segment against its checksum.
4. Rows: each vector belongs to one passage, by its key, or to a tombstone; each passage has a vector.
5. The ANN file against its checksums.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from embedkit.errors import IndexFileError

from ..kinds import parts_of
from ..search.ann_file import AnnFile
from ..storage.codes import RowArray
from ..storage.database import Database, add_functions, tombstone_sum
from ..storage.documents import marks_of
from ..storage.hashes import is_whole, passage_key
from ..storage.layout import DATABASE_NAME, SEGMENT_FOLDER, database_path, is_index
from ..storage.metadata import not_finite
from ..storage.schema import TEXT_CONTENT
from ..storage.settings import Settings
from ..storage.text_rows import stored_text_rows


@dataclass(frozen=True)
class Finding:
    """One damage: the file or table, what is wrong, and what helps."""

    place: str
    problem: str
    advice: str


def verify(path: str | Path) -> Iterator[Finding]:
    """Yield every damage of an index; nothing where it is whole. Searching and one writer may go on meanwhile.

    Raises:
        IndexFileError: there is no index.
    """
    folder = Path(path)
    if not is_index(folder):
        raise IndexFileError(
            f"{folder}: there is no index here to verify. Make one with: embedkit index build INPUT --index {folder}"
        )
    return _verify(folder)


def _verify(folder: Path) -> Iterator[Finding]:
    place = DATABASE_NAME
    try:
        database = Database(database_path(folder))
    except IndexFileError as exc:
        yield Finding(place, str(exc), "Repair it, or build the index again")
        return
    try:
        database.begin_snapshot()
        broken = False
        for problem in database_problems(database):
            broken = True
            yield Finding(place, problem, f"Run: embedkit index repair {folder}")
        if broken:
            return  # what a damaged database says of the other files is worth nothing
        yield from (
            Finding(where, problem, f"Run: embedkit index repair {folder}")
            for where, problem in _content_problems(folder, database)
        )
    except (sqlite3.DatabaseError, IndexFileError) as exc:
        yield Finding(place, str(exc), f"Run: embedkit index repair {folder}")
    finally:
        database.close()


def database_problems(database: Database) -> Iterator[str]:
    """Yield what SQLite finds wrong with its file, and what is wrong with the settings."""
    try:
        for (line,) in database.execute("PRAGMA integrity_check(20)").fetchall():
            if line != "ok":
                yield f"SQLite's integrity check says: {line}"
        settings = database.checked_meta("settings")
        Settings.from_json(settings or "")
        database.ann()
    except (sqlite3.DatabaseError, IndexFileError, ValueError, TypeError) as exc:
        yield str(exc)


def _content_problems(folder: Path, database: Database) -> Iterator[tuple[str, str]]:
    settings = Settings.from_json(database.checked_meta("settings") or "")
    payload = parts_of(settings, database).payload
    place = DATABASE_NAME
    for doc_id in damaged_documents(database):
        yield place, f"document {doc_id!r} is not what was written: its hash differs"
    for doc_id, fields in loose_documents(database):
        yield (
            place,
            f"document {doc_id!r} holds what JSON cannot: {fields}. Filters and hits take it for null",
        )
    problem = text_problem(database)
    if problem is not None:
        yield place, f"the text index does not fit the documents: SQLite says {problem!r}"
    rows, keys = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for info in database.segments():
        where = f"{SEGMENT_FOLDER}/{info.name}"
        try:
            segment = payload.open(folder / where, info)
        except (IndexFileError, FileNotFoundError) as exc:
            yield where, str(exc)
            continue
        rows.append(segment.rows)
        keys.append(segment.keys)
        bad = segment.damaged_rows()
        if len(bad):
            yield where, f"{len(bad)} vectors from row {bad[0]} on do not match their checksums"
        if (damage := segment.damage_of_lists()) is not None:
            yield where, damage
    for problem in row_problems(database, np.concatenate(rows), np.concatenate(keys)):
        yield place, problem
    info_of_ann = database.ann()
    if info_of_ann is not None:
        try:
            with closing(AnnFile(folder, info_of_ann)) as file:
                file.check()
        except FileNotFoundError:
            yield info_of_ann.name, "the file is missing, so every search is an exact one"
        except IndexFileError as exc:
            yield info_of_ann.name, str(exc)


def damaged_documents(database: Database) -> Iterator[str]:
    """Yield the ids of documents that do not have the hash they were stored with."""
    for doc_id, title, text, metadata, digest, places in database.execute(
        f"SELECT doc_id, title, text, metadata, content_hash, {database.places_column} FROM documents"
    ):
        if not is_whole(digest, doc_id, title, text, metadata) or marks_of(places) is None:
            yield doc_id


def loose_documents(database: Database) -> Iterator[tuple[str, str]]:
    """Yield (doc_id, fields) of documents whose metadata is not strict JSON, as earlier versions stored it."""
    found = database.execute(
        "SELECT doc_id, metadata FROM documents WHERE NOT json_valid(metadata) AND json_valid(strict_json(metadata))"
    )
    for doc_id, metadata in found:
        yield doc_id, not_finite(metadata)


def text_problem(database: Database) -> str | None:
    """Compare the text index with the documents' words.

    FTS5's own check is an INSERT, which wants a database that can be written: it is done on a temporary copy, so that a
    writer is not kept waiting and an index on a read-only disk can be verified too. There a table takes the place of the view
    that the check reads.
    """
    content = TEXT_CONTENT[database.version]
    with (
        TemporaryDirectory(prefix="embedkit-verify-") as folder,
        closing(sqlite3.connect(Path(folder) / "copy.sqlite", isolation_level=None)) as copy,
    ):
        add_functions(copy)
        database.copy_to(copy)
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute(f"DROP VIEW {content}")
        copy.execute(f"CREATE TABLE {content} (row INTEGER PRIMARY KEY, title, text)")
        rows = stored_text_rows(copy.execute, database.version)
        copy.executemany(f"INSERT INTO {content} VALUES (?, ?, ?)", rows)
        try:
            copy.execute("INSERT INTO text_index (text_index, rank) VALUES ('integrity-check', 1)")
        except sqlite3.DatabaseError as exc:
            return str(exc)
    return None


def row_problems(
    database: Database, rows: RowArray, keys: np.ndarray[tuple[int], np.dtype[np.uint64]]
) -> Iterator[str]:
    """Yield what does not fit between the rows of the segments, the passages and the tombstones."""
    tombstones = database.rows("SELECT row FROM tombstones ORDER BY row")
    if str(tombstone_sum(tombstones)) != database.meta("tombstone_sum"):
        yield "the tombstones are not those that were written"
    expected = passage_keys(database)
    for name, found in (
        ("passages without a vector", np.setdiff1d(list(expected), rows)),
        ("vectors without a passage or tombstone", np.setdiff1d(rows, [*expected, *tombstones.tolist()])),
        ("passages with a tombstone", np.intersect1d(list(expected), tombstones)),
        ("tombstones without a vector", np.setdiff1d(tombstones, rows)),
    ):
        if len(found):
            yield f"{len(found)} {name}; the first is row {int(found[0])}"
    wrong = [
        row for row, key in zip(rows.tolist(), keys.tolist(), strict=True) if expected.get(row, key) != key
    ]
    if wrong:
        yield f"{len(wrong)} vectors that belong to another text than their passage; the first is row {wrong[0]}"


def passage_keys(database: Database) -> dict[int, int]:
    """Return row -> the key that its vector must have; -1, which none has, where the database is damaged."""
    found = database.execute(
        "SELECT row, content_hash, number, start, stop FROM passages LEFT JOIN documents USING (doc_key)"
    )
    return {row: _key_of(digest, place) for row, digest, *place in found}


def _key_of(digest: object, place: Sequence[int]) -> int:
    try:
        return passage_key(digest, *place) if isinstance(digest, bytes) else -1
    except (struct.error, TypeError):
        return -1
