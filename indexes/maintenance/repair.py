"""repair(): rebuild what can be derived, and take out, by name, what cannot.

A document that lost its vector or its words is deleted, so that the next build of the same input embeds it again.
1. A database that SQLite cannot read in full is copied into a new one, from both ends up to the damage.
2. Segments: blocks with wrong checksums are left out of a new file; a segment that cannot be read goes.
3. Documents, passages and rows that do not fit together go; what is left in the segments gets tombstones.
4. Metadata that earlier versions stored with NaN or an infinity is stored again with null in its place.
5. The text index is built again from the documents, the ANN structure from the segments.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedkit.data.qrels import name_some
from embedkit.data.records import titled_text
from embedkit.errors import IndexFileError

from ..kinds import parts_of
from ..search.ann_file import AnnFile
from ..storage.database import Database
from ..storage.documents import one_of, update_document
from ..storage.hashes import content_hash, is_whole
from ..storage.layout import DATABASE_NAME, SEGMENT_FOLDER, database_path, is_index
from ..storage.lock import WriterLock
from ..storage.merging import put_in_place_of, write_kept
from ..storage.metadata import strict_json
from ..storage.schema import FORMAT_VERSION, NEWEST_VERSION, checked, create_database, version_of
from ..storage.settings import Settings
from ..store import Index
from .ann_build import build_ann
from .verify import damaged_documents, database_problems, passage_keys

if TYPE_CHECKING:
    from ..types import Kind

# Everything that is not derived; the text index is made again.
_TABLES = ("meta", "documents", "passages", "segments", "tombstones", "fields")


@dataclass(frozen=True)
class Repair:
    """One thing put right. `lost` are the ids of documents that the next build must bring again."""

    place: str
    done: str
    lost: Sequence[str] = ()


def repair(path: str | Path) -> Iterator[Repair]:
    """Put an index right as far as can be, yielding each thing done; nothing where nothing was wrong.

    Raises:
        IndexFileError: there is no index, another process writes to it, or its settings cannot be read.
    """
    folder = Path(path)
    if not is_index(folder):
        raise IndexFileError(
            f"{folder}: there is no index here to repair. Make one with: embedkit index build INPUT --index {folder}"
        )
    return _repair(folder, WriterLock(folder))


def _repair(folder: Path, lock: WriterLock) -> Iterator[Repair]:
    try:
        copied = False
        for step in _repair_database(folder):
            copied = True
            yield step
        database = Database(database_path(folder), writable=True)
        try:
            yield from _repair_content(folder, database, damaged=copied)
        finally:
            database.close()
    finally:
        lock.release()
    yield from _repair_ann(folder)


def _repair_database(folder: Path) -> Iterator[Repair]:
    path = database_path(folder)
    try:
        with closing(Database(path)) as database:
            problems = list(database_problems(database))
    except IndexFileError as exc:
        problems = [str(exc)]
    if not problems:
        return
    rows: dict[str, list[tuple[Any, ...]]] = {}  # Any: SQLite's values
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        for table in _TABLES:
            rows[table] = _readable_rows(old, table)
    meta = dict(cast("list[tuple[str, Any]]", rows["meta"]))
    version = meta.get("format_version")
    if isinstance(version, int) and version > NEWEST_VERSION:
        raise IndexFileError(
            f"{folder}: index format version {version}; this embedkit repairs up to {NEWEST_VERSION}. Update embedkit"
        )
    settings = str(meta.get("settings", "")).partition(" ")[2]
    if meta.get("settings") != checked(settings):
        raise IndexFileError(
            f"{path}: the settings cannot be read, and nothing else says what the vectors are. Build the index again"
        )

    def fill(connection: sqlite3.Connection) -> None:
        kept = {**meta, "format_version": version_of(Settings.from_json(settings).kind)}
        kept.pop("ann", None)
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", kept.items())
        connection.execute(
            "UPDATE meta SET value = max(value, ?) WHERE name = 'next_row'",
            (1 + max((first + count for _, first, count, *_ in rows["segments"]), default=0),),
        )
        for table in _TABLES[1:]:
            named = [column for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")]
            for row in rows[
                table
            ]:  # those of an earlier format version may have fewer columns, the last ones missing
                columns, marks = ", ".join(named[: len(row)]), ", ".join("?" * len(row))
                try:
                    connection.execute(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", row)
                except (sqlite3.DatabaseError, UnicodeEncodeError):
                    continue  # a value that is not what the column holds: the row is lost with it

    for suffix in ("-wal", "-shm"):  # the old file's log would be taken for the new one's
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    create_database(path, settings, fill=fill)
    yield Repair(path.name, f"copied what could be read into a new database ({problems[0]})")


def _readable_rows(
    connection: sqlite3.Connection, table: str
) -> list[tuple[Any, ...]]:  # Any: SQLite's values
    """Read a table from both ends, each up to where it cannot be read further."""
    found: dict[tuple[Any, ...], None] = {}  # Any: SQLite's values
    key = {"meta": "name", "segments": "name", "fields": "name"}.get(table, "rowid")
    for direction in ("ASC", "DESC"):
        try:
            for row in connection.execute(f"SELECT * FROM {table} NOT INDEXED ORDER BY {key} {direction}"):
                found.setdefault(row)
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            continue
    return list(found)


def _repair_content(folder: Path, database: Database, *, damaged: bool) -> Iterator[Repair]:
    """Put documents, passages and segments right; `damaged` says that rows of the database were lost before."""
    settings = Settings.from_json(database.checked_meta("settings") or "")
    payload = parts_of(settings, database).payload
    sound: dict[int, int] = {}  # row -> key, of the vectors that can be read
    for info in database.segments():
        where = f"{SEGMENT_FOLDER}/{info.name}"
        try:
            segment = payload.open(folder / where, info)
        except (IndexFileError, FileNotFoundError) as exc:
            with database.transaction():
                database.remove_segments([info.name])
            damaged = True
            yield Repair(where, f"removed a segment of {info.rows} vectors that cannot be read ({exc})")
            continue
        bad = segment.damaged_rows()
        good = np.isin(segment.rows, bad, invert=True)
        damage = segment.damage_of_lists()
        if len(bad) or damage is not None:
            kept = write_kept(folder, database, payload, [segment], [np.flatnonzero(good)])
            with database.transaction():
                put_in_place_of([segment], kept, database)
            if len(bad):
                damaged = True
                yield Repair(where, f"removed {len(bad)} vectors whose checksums do not match")
            if damage is not None:
                yield Repair(where, f"wrote the file again ({damage})")
        sound.update(zip(segment.rows[good].tolist(), segment.keys[good].tolist(), strict=True))
    strict = _write_strict(database)
    if strict:
        yield Repair(
            database_path(folder).name,
            f"stored null for what JSON cannot hold in the metadata of {len(strict)} documents: {name_some(strict)}",
        )
    lost = _misfits(database, sound, damaged=damaged)
    before = [database.meta("tombstone_sum"), database.count("tombstones")]
    with database.transaction():
        _remove(database, lost, sound)
        if database.version < FORMAT_VERSION:
            database.upgrade()
        database.rebuild_text_index()
    if lost:
        yield Repair(
            DATABASE_NAME,
            f"deleted {len(lost)} documents that lost their words or vectors; build again from the same input",
            tuple(sorted(lost)),
        )
    elif before != [database.meta("tombstone_sum"), database.count("tombstones")]:
        yield Repair(DATABASE_NAME, "wrote the tombstones again")
    yield Repair(DATABASE_NAME, "built the text index again")


def _write_strict(database: Database) -> list[str]:
    """Store null where metadata holds NaN or an infinity; return the ids of these documents."""
    found = database.execute(
        "SELECT doc_key, doc_id, title, text, metadata, content_hash, source FROM documents WHERE NOT json_valid(metadata)"
    ).fetchall()
    written = []
    with database.transaction():
        for key, doc_id, title, text, metadata, digest, source in found:
            strict = strict_json(metadata)
            # A damaged document is deleted below: it must not get a hash that says it is whole.
            if strict != metadata and is_whole(digest, doc_id, title, text, metadata):
                new = content_hash(doc_id, title, text, strict) + bytes(digest)[24:]
                update_document(database, key, strict, new, source)
                written.append(doc_id)
    return written


def _misfits(database: Database, sound: dict[int, int], *, damaged: bool) -> set[str]:
    """Return the ids of documents that are damaged or lack one of their vectors.

    A document without passages may have lost them, or have a text of which the model reads nothing. Where nothing is `damaged` and each
    vector has its passage or a tombstone, it is the latter.
    """
    expected = passage_keys(database)
    tombstones = database.rows("SELECT row FROM tombstones").tolist()
    damaged = damaged or not sound.keys() <= {*expected, *tombstones}
    bad_rows = [row for row, key in expected.items() if sound.get(row) != key]
    found = database.execute(
        "SELECT DISTINCT doc_id FROM passages JOIN documents USING (doc_key) "
        "WHERE row IN (SELECT value FROM json_each(?))",
        (json.dumps(bad_rows),),
    )
    lost = {doc_id for (doc_id,) in found} | set(damaged_documents(database))
    # A document whose passages were lost with a part of the table has a hole in their numbers, or none at all.
    holes = database.execute(
        "SELECT doc_id, title, text, count(row) FROM documents LEFT JOIN passages USING (doc_key) "
        "GROUP BY doc_key HAVING count(row) = 0 OR max(number) + 1 != count(row)"
    )
    return lost | {
        doc_id for doc_id, title, text, count in holes if count or (damaged and titled_text(title, text))
    }


def _remove(database: Database, lost: set[str], sound: dict[int, int]) -> None:
    """Delete documents without asking the text index, and give every row without a passage a tombstone."""
    which, values = one_of(sorted(lost))
    database.execute(f"DELETE FROM documents WHERE {which}", values)
    database.execute("DELETE FROM passages WHERE doc_key NOT IN (SELECT doc_key FROM documents)")
    living = set(database.rows("SELECT row FROM passages").tolist())
    database.execute("DELETE FROM tombstones")
    database.executemany("INSERT INTO tombstones VALUES (?)", [(row,) for row in sorted(set(sound) - living)])
    database.set_tombstone_sum()


def _repair_ann(folder: Path) -> Iterator[Repair]:
    with Index.open(folder, writable=True) as index:
        info = index.database.ann()
        if info is None:
            return
        try:
            with closing(AnnFile(folder, info)) as file:
                file.check()
        except (FileNotFoundError, IndexFileError) as exc:
            kind = cast("Kind", info.kind if index.snapshot.num_rows else "flat")
            for _ in build_ann(index, kind):
                pass
            yield Repair(info.name, f"built the {info.kind} structure again ({exc}); tune it again")
