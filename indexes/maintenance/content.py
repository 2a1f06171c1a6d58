"""What an index holds, as one hash and as the hashes of its ids: equal contents are told without comparing files.

Two indexes with the same documents in the same order, the same passages, stored vectors and words have the same hash, however
many commits made them and whatever numbers their rows have.
"""

from __future__ import annotations

import hashlib
import sqlite3
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..storage.faults import reading

if TYPE_CHECKING:
    from ..store import Index

_ROWS = 4096  # vectors hashed at a time


def content_hash(index: Index) -> str:
    """Return the SHA-256 of everything that can be found in an index; reads all of it.

    Raises:
        IndexFileError: something of it cannot be read or is not what was written.
    """
    whole = hashlib.sha256(index.settings.to_json().encode())
    with reading(index.database.path):
        for part in (_documents, _words, _vectors):
            part(index, whole)
    return whole.hexdigest()


def _documents(index: Index, whole: hashlib._Hash) -> None:
    columns = f"doc_id, title, text, metadata, hex(content_hash), source, {index.database.places_column}"
    found = index.database.execute(
        f"SELECT doc_key, {columns}, number, start, stop FROM documents LEFT JOIN passages USING (doc_key) ORDER BY doc_key, number"
    )
    for _, rows in groupby(found, key=lambda row: row[0]):
        places = []
        for row in rows:
            places.append(row[-3:])
            document = row[1:-3]
        whole.update(repr((document, places)).encode("utf-8", "surrogatepass"))


def _words(index: Index, whole: hashlib._Hash) -> None:
    """Add how many words each passage has, by which BM25 weighs; what they are follows from the texts."""
    for (sizes,) in index.database.execute("SELECT sz FROM text_index_docsize ORDER BY id"):
        whole.update(b"%d " % len(sizes) + sizes)


def _vectors(index: Index, whole: hashlib._Hash) -> None:
    alive = index.snapshot.alive
    pieces: list[
        hashlib._Hash
    ] = []  # of rows that are stored in several, each by itself: segments may end anywhere
    for segment in index.snapshot.segments:
        for start in range(0, len(segment), _ROWS):
            positions = np.arange(start, min(len(segment), start + _ROWS))
            if alive is not None:
                positions = positions[alive[segment.rows[positions]]]
            stored = segment.stored(positions)
            if len(stored) == 1:
                whole.update(stored[0])
                continue
            pieces = pieces or [hashlib.sha256() for _ in stored]
            for piece, part in zip(pieces, stored, strict=True):
                piece.update(part)
        segment.release()
    for segment in index.snapshot.segments[:1]:  # what the stored numbers mean is the same in all
        whole.update(segment.meaning)
    for piece in pieces:
        whole.update(piece.digest())


def id_hashes(index: Index) -> NDArray[np.uint64]:
    """Return 64 bits of a hash of each document's id, sorted: (N,)."""
    with reading(index.database.path):
        found = [
            int.from_bytes(hashlib.blake2b(doc_id.encode(), digest_size=8).digest(), "little")
            for (doc_id,) in index.database.execute("SELECT doc_id FROM documents")
        ]
    return np.sort(np.array(found, np.uint64))


def ids_with_hashes(index: Index, hashes: NDArray[np.uint64]) -> dict[str, str]:
    """Return the ids that have one of some hashes, each with its file's path."""
    wanted = set(hashes.tolist())
    with reading(index.database.path):
        return {
            doc_id: source
            for doc_id, source in index.database.execute(
                "SELECT doc_id, source FROM documents ORDER BY doc_key"
            )
            if int.from_bytes(hashlib.blake2b(doc_id.encode(), digest_size=8).digest(), "little") in wanted
        }


def sqlite_version() -> str:
    """Return the version of SQLite, which keeps an index's documents and words."""
    return sqlite3.sqlite_version
