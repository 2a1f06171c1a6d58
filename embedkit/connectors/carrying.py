"""Between an index and the rows of a store: every bit goes there, and every bit comes back.

A document's text is in its passages; what lies between them goes along as `before` (of the first that follows it) and `after`. A row's
digest covers document, place, source and vector, so that what has changed is known without sending it, and what comes back is proved.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embedkit.connectors.store import BATCH_ROWS, Key, StoredAs, StoreRow, Vectors
from embedkit.data.places import Place, marks_json, place_of, read_marks
from embedkit.data.records import Document, Hit
from embedkit.errors import IndexFileError, IndexMismatchError, StoreError
from indexes import Index, Passage
from indexes.storage.commit import Addition, Change
from indexes.storage.documents import StoredDocument, read_documents, stored_places
from indexes.storage.hashes import content_hash, is_whole
from indexes.storage.metadata import read_metadata

_PLACE = struct.Struct("<Iqqq")  # number, start and stop of a passage, and how many its document has
_OF_WORDS = 24  # bytes of a document's hash; one of a ready vector follows
_DOCUMENTS = 256  # read at a time


def read_rows(index: Index, storage: StoredAs) -> Iterator[tuple[list[StoreRow], Vectors]]:
    """Yield the passages of an index with their vectors (N, E) as a store is to hold them, in batches.

    Raises:
        IndexFileError: a document is not what was written.
        IndexMismatchError: a vector does not fit into float16.
    """
    rows: list[StoreRow] = []
    parts: list[Vectors] = []
    after = 0
    while batch := read_documents(index.database, after, _DOCUMENTS):
        after = batch[-1].doc_key
        numbers = [row for stored in batch for row, _, _ in stored.passages]
        vectors = rounded(index.snapshot.gather(np.asarray(numbers, np.int64)), storage, str(index.path))
        first = 0
        for stored in batch:
            _check_whole(stored, index)
            rows += _rows_of(stored, vectors[first : first + len(stored.passages)])
            first += len(stored.passages)
        parts.append(vectors)
        if len(rows) >= BATCH_ROWS:
            yield rows, np.concatenate(parts)
            rows, parts = [], []
    if rows:
        yield rows, np.concatenate(parts)


def rounded(vectors: Vectors, storage: StoredAs, place: str) -> Vectors:
    """Return float32 vectors whose values are those that the store will have.

    Raises:
        IndexMismatchError: a number is beyond float16.
    """
    if storage == "float32":
        return vectors
    if len(vectors) and np.abs(vectors).max() > 65504:
        raise IndexMismatchError(
            f"{place}: a vector holds {np.abs(vectors).max():g}; float16 reaches 65504. Push with --vector-type float32"
        )
    return vectors.astype(np.float16).astype(np.float32)


def _check_whole(stored: StoredDocument, index: Index) -> None:
    document = stored.document
    if not is_whole(stored.digest, document.doc_id, document.title, document.text, stored.metadata):
        raise IndexFileError(
            f"{index.path}: document {document.doc_id!r} is not what was written: its hash differs. "
            f"Run: embedkit index repair {index.path}"
        )


def _rows_of(stored: StoredDocument, vectors: Vectors) -> Iterator[StoreRow]:
    document = stored.document
    places = marks_json(document.marks)
    covered, count = 0, len(stored.passages)
    for number, (_, start, stop) in enumerate(stored.passages):
        text = document.text if stop == -1 else document.text[start:stop]
        end = start + len(text)
        record: dict[str, object] = {"start": start, "stop": stop, "of": count, "metadata": stored.metadata}
        if start > covered:
            record["before"] = document.text[covered:start]
        covered = max(covered, end)
        if number == count - 1 and covered < len(document.text):
            record["after"] = document.text[covered:]
        if len(stored.digest) > _OF_WORDS:
            record["ready"] = True  # the vector came with the document, and is part of what it is known by
        if places and not number:
            record["places"] = places
        place = place_of(document.marks, document.text, start, end)
        if place is not None:
            record["place"] = place.as_dict()
        yield StoreRow(
            Key(document.doc_id, number),
            document.title,
            text,
            document.source,
            stored.metadata,
            json.dumps(record, ensure_ascii=False),
            row_digest(
                stored.digest, (number, start, stop, count), document.source + places, vectors[number]
            ),
        )


def row_digest(document: bytes, place: tuple[int, int, int, int], origin: str, vector: Vectors) -> str:
    """Hash what a row stands for: 32 hexadecimal digits."""
    digest = hashlib.blake2b(document[:32], digest_size=16)
    digest.update(_PLACE.pack(*place))
    digest.update(origin.encode())
    digest.update(np.ascontiguousarray(vector, "<f4").tobytes())
    return digest.hexdigest()


@dataclass
class _Pending:
    """A document of which some passages have come."""

    passages: dict[int, tuple[StoreRow, Vectors]] = field(default_factory=dict)


@dataclass
class Gatherer:
    """Puts rows together to documents, and writes those that are whole to an index, each vector with the bits that it has."""

    index: Index
    place: str  # the store's, for messages
    rows: int = 0
    _pending: dict[str, _Pending] = field(default_factory=dict)
    _ready: list[Addition] = field(default_factory=list)
    _vectors: list[Vectors] = field(default_factory=list)
    _fields: set[str] = field(default_factory=set)

    def take(self, rows: Sequence[StoreRow], vectors: Vectors) -> None:
        """Take rows with (N, E) vectors in.

        Raises:
            StoreError: a row is not what was pushed.
        """
        if vectors.shape != (len(rows), self.index.settings.dimension):
            raise StoreError(
                f"{self.place}: vectors of shape {vectors.shape} came for {len(rows)} rows of dimension {self.index.settings.dimension}. "
                "Push the index again under another name"
            )
        for row, vector in zip(rows, vectors, strict=True):
            record = _record(row, self.place)
            pending = self._pending.setdefault(row.key.doc_id, _Pending())
            pending.passages[row.key.passage] = (row, vector)
            if len(pending.passages) == record["of"]:
                del self._pending[row.key.doc_id]
                self._assemble(pending)
        self.rows += len(rows)
        if sum(map(len, self._vectors)) >= BATCH_ROWS:
            self._commit()

    def finish(self) -> None:
        """Write the rest.

        Raises:
            StoreError: passages of a document are missing.
        """
        self._commit()
        if self._pending:
            doc_id, pending = next(iter(self._pending.items()))
            raise StoreError(
                f"{self.place}: {len(self._pending):,} documents lack passages, such as {doc_id!r}, of which {len(pending.passages)} are there. "
                "Push the index again to mend them"
            )

    def _assemble(self, pending: _Pending) -> None:
        parts = [pending.passages[number] for number in sorted(pending.passages)]
        first = parts[0][0]
        records = [_record(row, self.place) for row, _ in parts]
        text = ""
        for (row, _), record in zip(parts, records, strict=True):
            text += str(record.get("before", ""))
            text += str(record.get("text", row.text))[max(0, len(text) - int(record["start"])) :]
            text += str(record.get("after", ""))
        doc_id, title = first.key.doc_id, str(records[0].get("title", first.title))
        metadata, marks = str(records[0]["metadata"]), read_marks(str(records[0].get("places", "")))
        document = Document(doc_id, text, title, {}, first.source, marks=marks)
        vectors = np.stack([vector for _, vector in parts])
        ready = vectors[0].tobytes() if "ready" in records[0] else b""
        digest = content_hash(doc_id, title, text, metadata, ready)
        cuts = [Passage(int(record["start"]), int(record["stop"])) for record in records]
        origin = first.source + str(records[0].get("places", ""))
        for (row, vector), cut in zip(parts, cuts, strict=True):
            place = (row.key.passage, cut.start, cut.stop, len(parts))
            if row_digest(digest, place, origin, vector) != row.digest:
                raise StoreError(
                    f"{self.place}: passage {row.key.passage} of {doc_id!r} is not what was pushed: its hash differs. "
                    "Push the index again to mend it"
                )
        self._fields.update(read_metadata(metadata))
        self._ready.append(Addition(document, metadata, digest, cuts, stored_places(document)))
        self._vectors.append(vectors)

    def _commit(self) -> None:
        if self._ready:
            change = Change(self._ready, (), (), frozenset(self._fields))
            self.index.need_writer().commit(change, np.concatenate(self._vectors))
            self.index.settle()
        self._ready, self._vectors, self._fields = [], [], set()


def hit_of(row: StoreRow, place: str) -> Hit:
    """Return what is stored of a passage as a hit that has no score yet.

    Raises:
        StoreError: the row was not written by embedkit.
    """
    record = _record(row, place)
    text = str(record.get("text", row.text))
    where = record.get("place")
    return Hit(
        row.key.doc_id,
        0.0,
        text,
        title=str(record.get("title", row.title)),
        metadata=read_metadata(str(record["metadata"])),
        passage=row.key.passage,
        source=row.source,
        start=int(record["start"]),
        stop=int(record["start"]) + len(text),
        place=None if where is None else Place.from_dict(where),
    )


def _record(row: StoreRow, place: str) -> dict[str, Any]:  # Any: whatever JSON holds
    try:
        record: dict[str, Any] = json.loads(row.record)  # Any: whatever JSON holds
        if not {"start", "stop", "of", "metadata"} <= record.keys():
            raise ValueError("keys are missing")
    except (ValueError, TypeError, AttributeError) as exc:
        raise StoreError(
            f"{place}: passage {row.key.passage} of {row.key.doc_id!r} was not written by embedkit ({exc}). "
            "Remove what others have put into the table, or push under another name"
        ) from exc
    return record
