"""The SQLite side of documents and passages: what goes in, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from embedkit.data.places import Mark, Place, marks_json, place_of, read_marks
from embedkit.data.records import Document
from embedkit.errors import IndexFileError, RecordError

from .codes import RowArray
from .database import Database
from .hashes import is_whole, passage_key
from .schema import checked, unchecked
from .text_rows import stored_text_rows, text_rows


@dataclass(frozen=True, slots=True)
class Passage:
    """Where a passage stands in its document's text, in characters."""

    start: int
    stop: int


class StoredPassage(NamedTuple):
    """A passage with the document it belongs to. A search makes thousands: four times as fast as a frozen dataclass."""

    doc_id: str
    number: int
    title: str
    text: str
    metadata: str
    key: int  # what the segment must hold beside the vector
    source: str
    start: int  # of the passage in its document, in characters
    stop: int
    place: Place | None


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it is stored, with (row, start, stop) of each passage; its metadata stay JSON."""

    doc_key: int
    document: Document
    metadata: str
    digest: bytes
    passages: Sequence[tuple[int, int, int]]


class Known(NamedTuple):
    """What tells whether a document has changed since it was stored."""

    doc_key: int
    digest: bytes
    source: str
    places: str


def stored_places(document: Document) -> str:
    """Return the column that says where a document's text stands in its file, with a checksum; "" where nothing says so."""
    text = marks_json(document.marks)
    return checked(text) if text else ""


def marks_of(places: str) -> tuple[Mark, ...] | None:
    """Read the column that `stored_places` made; None where it is not what was written."""
    text = unchecked(places) if places else ""
    return None if text is None else read_marks(text)


def document_ids(database: Database, keys: Sequence[int]) -> list[str]:
    """Return the ids of documents by their keys, in the order of the keys."""
    found = dict(
        database.execute(
            "SELECT doc_key, doc_id FROM documents WHERE doc_key IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )
    )
    return [found[key] for key in keys if key in found]


def one_of(doc_ids: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    r"""Return the SQL condition that `doc_id` is one of these, and the values of its question marks.

    For SQLite's JSON a text ends at a NUL, so that "a\0b" would find "a": ids that hold one, which earlier versions let in, are bound.
    """
    bound = tuple(doc_id for doc_id in doc_ids if "\0" in doc_id)
    plain = "doc_id IN (SELECT value FROM json_each(?))"
    if not bound:
        return plain, (json.dumps(list(doc_ids)),)
    listed = json.dumps([doc_id for doc_id in doc_ids if "\0" not in doc_id])
    return f"({plain} OR doc_id IN ({', '.join('?' * len(bound))}))", (listed, *bound)


def find_documents(database: Database, doc_ids: Sequence[str]) -> dict[str, Known]:
    """Return what is known of those documents that are here, by their ids."""
    wanted, values = one_of(doc_ids)
    found = database.execute(
        f"SELECT doc_id, doc_key, content_hash, source, {database.places_column} FROM documents WHERE {wanted}",
        values,
    )
    return {doc_id: Known(*known) for doc_id, *known in found}


def duplicate_id(doc_id: str, first: str, second: str) -> RecordError:
    return RecordError(
        f"{second or 'documents'}: the id {doc_id!r} stands there again; it was at {first or 'an earlier place'}. "
        "Ids must be different: rename one or remove it"
    )


def insert_document(database: Database, document: Document, metadata: str, digest: bytes, places: str) -> int:
    names = "doc_id, title, text, metadata, content_hash, source"
    values = [document.doc_id, document.title, document.text, metadata, digest, document.source]
    if database.has_places:
        names = f"{names}, places"
        values.append(places)
    cursor = database.execute(
        f"INSERT INTO documents ({names}) VALUES ({', '.join('?' * len(values))})", values
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def insert_passages(
    database: Database, placed: Sequence[tuple[Document, Sequence[tuple[int, int, int, int, int]]]]
) -> None:
    """Insert the (row, doc_key, number, start, stop) of documents, and their words."""
    version = database.version
    database.executemany(
        "INSERT INTO passages VALUES (?, ?, ?, ?, ?)", (place for _, places in placed for place in places)
    )
    database.executemany(
        "INSERT INTO text_index (rowid, title, text) VALUES (?, ?, ?)",
        (
            row
            for document, places in placed
            for row in text_rows(
                version, document.title, document.text, ((place[0], *place[3:]) for place in places)
            )
        ),
    )


def add_fields(database: Database, names: Iterable[str]) -> None:
    database.executemany("INSERT OR IGNORE INTO fields VALUES (?)", [(name,) for name in names])


def update_document(
    database: Database, doc_key: int, metadata: str, digest: bytes, source: str, places: str | None = None
) -> None:
    """Change what needs no new vector; None leaves the places as they are."""
    database.execute(
        "UPDATE documents SET metadata = ?, content_hash = ?, source = ? WHERE doc_key = ?",
        (metadata, digest, source, doc_key),
    )
    if places is not None and database.has_places:
        database.execute("UPDATE documents SET places = ? WHERE doc_key = ?", (places, doc_key))


def delete_documents(database: Database, doc_keys: Sequence[int]) -> None:
    """Take documents, passages and words out and leave tombstones for their rows."""
    keys = json.dumps(list(doc_keys))
    of_keys = "(SELECT value FROM json_each(?))"
    # FTS5 forgets a row only when told what it held, so this comes before the texts go.
    database.executemany(
        "INSERT INTO text_index (text_index, rowid, title, text) VALUES ('delete', ?, ?, ?)",
        stored_text_rows(database.execute, database.version, keys),
    )
    database.execute(f"INSERT INTO tombstones SELECT row FROM passages WHERE doc_key IN {of_keys}", (keys,))
    database.execute(f"DELETE FROM passages WHERE doc_key IN {of_keys}", (keys,))
    database.execute(f"DELETE FROM documents WHERE doc_key IN {of_keys}", (keys,))
    database.set_tombstone_sum()


def read_passages(database: Database, rows: RowArray) -> dict[int, StoredPassage]:
    """Return the passages of rows; what is not there is left out.

    A document is read, and proved, once, however many of its passages are asked for.

    Raises:
        IndexFileError: a document is not what was written.
    """
    places = database.execute(
        "SELECT row, doc_key, number, start, stop FROM passages WHERE row IN (SELECT value FROM json_each(?))",
        (json.dumps(rows.tolist()),),
    ).fetchall()
    documents = {}
    for doc_key, doc_id, title, text, metadata, digest, source, stored in database.execute(
        "SELECT doc_key, doc_id, title, text, metadata, content_hash, source, "
        f"{database.places_column} FROM documents WHERE doc_key IN (SELECT value FROM json_each(?))",
        (json.dumps(list({place[1] for place in places})),),
    ):
        marks = marks_of(stored)
        if marks is None or not is_whole(digest, doc_id, title, text, metadata):
            raise IndexFileError(
                f"{database.path}: document {doc_id!r} is not what was written: its hash differs. "
                f"Run: embedkit index repair {database.path.parent}"
            )
        documents[doc_key] = (doc_id, title, text, metadata, digest, source, marks)
    passages = {}
    for row, doc_key, number, start, stop in places:
        if doc_key not in documents:
            continue
        doc_id, title, text, metadata, digest, source, marks = documents[doc_key]
        part = text if stop == -1 else text[start:stop]
        key = passage_key(digest, number, start, stop)
        end = start + len(part)
        passages[row] = StoredPassage(
            *(doc_id, number, title, part, metadata, key, source, start, end),
            place_of(marks, text, start, end),
        )
    return passages


def doc_ids(database: Database, rows: RowArray) -> dict[int, tuple[str, int]]:
    """Return row -> (doc_id, number of the passage)."""
    found = database.execute(
        "SELECT row, doc_id, number FROM passages JOIN documents USING (doc_key) "
        "WHERE row IN (SELECT value FROM json_each(?))",
        (json.dumps(rows.tolist()),),
    )
    return {row: (doc_id, number) for row, doc_id, number in found}


def passage_rows(database: Database, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Return (doc_id, number of the passage) -> row; what is not there is left out, and other passages of the documents may be there."""
    wanted, values = one_of(list({doc_id for doc_id, _ in places}))
    found = database.execute(
        f"SELECT doc_id, number, row FROM documents JOIN passages USING (doc_key) WHERE {wanted} "
        "AND number IN (SELECT value FROM json_each(?))",
        (*values, json.dumps(list({number for _, number in places}))),
    )
    return {(doc_id, number): row for doc_id, number, row in found}


def passage_counts(database: Database, rows: RowArray) -> dict[int, int]:
    """Return row -> how many passages its document has."""
    found = database.execute(
        "SELECT p.row, (SELECT count(*) FROM passages AS q WHERE q.doc_key = p.doc_key) FROM passages AS p "
        "WHERE p.row IN (SELECT value FROM json_each(?))",
        (json.dumps(rows.tolist()),),
    )
    return dict(found)


def count_passages(database: Database, doc_ids: Sequence[str]) -> dict[str, int]:
    """Return id -> how many passages the document has; documents that are not there, or have none, are left out."""
    wanted, values = one_of(doc_ids)
    found = database.execute(
        f"SELECT doc_id, count(*) FROM documents JOIN passages USING (doc_key) WHERE {wanted} GROUP BY doc_id",
        values,
    )
    return dict(found)


def count_documents(database: Database, rows: RowArray | None = None) -> int:
    """Count the documents that have a passage, or of some rows those that these are of."""
    among = "" if rows is None else "WHERE row IN (SELECT value FROM json_each(?))"
    values = () if rows is None else (json.dumps(rows.tolist()),)
    found = database.execute(f"SELECT count(DISTINCT doc_key) FROM passages {among}", values)
    return int(found.fetchone()[0])


def read_documents(database: Database, after_key: int, count: int) -> list[StoredDocument]:
    """Return up to `count` documents with keys above one, in order, with (row, start, stop) of their passages."""
    found = database.execute(
        "SELECT doc_key, doc_id, title, text, metadata, content_hash, source, "
        f"{database.places_column} FROM documents WHERE doc_key > ? ORDER BY doc_key LIMIT ?",
        (after_key, count),
    ).fetchall()
    spans = "SELECT row, start, stop FROM passages WHERE doc_key = ? ORDER BY number"
    return [
        StoredDocument(
            key,
            Document(doc_id, text, title, {}, source, marks=marks_of(places) or ()),
            metadata,
            digest,
            database.execute(spans, (key,)).fetchall(),
        )
        for key, doc_id, title, text, metadata, digest, source, places in found
    ]
