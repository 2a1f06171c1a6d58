"""How an index changes: segment file, fsync, then one transaction that names it with its documents.

Whatever happens before the transaction's end leaves a file that no transaction names; the next writer removes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embedkit.data.records import Document
from embedkit.errors import RecordError
from embedkit.retrieval.vectors import Vectors

from .database import Database
from .documents import (
    Passage,
    add_fields,
    delete_documents,
    insert_document,
    insert_passages,
    stored_places,
    update_document,
)
from .faults import writing
from .hashes import content_hash, passage_key
from .layout import SEGMENT_FOLDER, SEGMENT_PATTERN
from .metadata import metadata_json
from .payload import Meta, Payload
from .segment_file import SegmentInfo

WHOLE = (Passage(0, -1),)  # the passage that is all of its text


@dataclass(frozen=True, slots=True)
class Addition:
    """A document that goes in, with what is stored of each of its passages."""

    document: Document
    metadata: str
    digest: bytes
    passages: Sequence[Passage] = WHOLE
    places: str = ""  # where the text stands in its file, as it is stored

    def __post_init__(self) -> None:
        """Check the id.

        Raises:
            RecordError: it holds a NUL, at which text ends for SQLite's JSON functions.
        """
        if "\0" in self.document.doc_id:
            where = f"{self.document.where}: " if self.document.where else ""
            raise RecordError(
                f"{where}the id is {self.document.doc_id!r}; an id must not hold the character NUL. Change it"
            )

    @classmethod
    def of(cls, document: Document, passages: Sequence[Passage] = WHOLE, *, vector: bytes = b"") -> Addition:
        """Take a document in; `vector` are the bytes of one that was not made from its text.

        Raises:
            RecordError: its id, or what its metadata hold, cannot be stored.
        """
        metadata = metadata_json(document)
        digest = content_hash(document.doc_id, document.title, document.text, metadata, vector)
        return cls(document, metadata, digest, passages, stored_places(document))


@dataclass(frozen=True, slots=True)
class Update:
    """What changes of a document without a new vector: its metadata, where it was read, or where its parts stand there."""

    doc_key: int
    metadata: str
    digest: bytes
    source: str
    places: str


@dataclass(frozen=True)
class Change:
    """What one commit does."""

    additions: Sequence[Addition] = ()
    updates: Sequence[Update] = ()
    deleted_keys: Sequence[int] = ()  # documents that go, those that an addition replaces among them
    fields: frozenset[str] = field(default_factory=frozenset)  # names of metadata that now occur


class Writer:
    """Applies changes to an index whose lock this process holds."""

    def __init__(self, folder: Path, database: Database, payload: Payload) -> None:
        self.folder, self.database, self.payload = folder, database, payload
        with writing(folder):
            (folder / SEGMENT_FOLDER).mkdir(exist_ok=True)
            self.remove_orphans()

    def remove_orphans(self) -> None:
        """Remove the files that no transaction names: what a kill or a compaction left behind."""
        named = {f"{SEGMENT_FOLDER}/{info.name}" for info in self.database.segments()}
        ann = self.database.ann()
        if ann is not None:
            named.add(ann.name)
        found = [*(self.folder / SEGMENT_FOLDER).iterdir(), *self.folder.glob("ann-*.faiss*")]
        for path in found:
            if path.relative_to(self.folder).as_posix() not in named:
                path.unlink()

    def commit(self, change: Change, *vectors: Vectors) -> None:
        """Apply a change; vectors of N texts, in any number of parts, are those of its passages, in order, already prepared.

        Raises:
            IndexFileError: the disk is full or cannot be written; the index is as it was before.
        """
        database = self.database
        first_row = row = int(database.meta("next_row"))
        name = database.next_file_name(SEGMENT_PATTERN)
        keys = [
            passage_key(addition.digest, number, passage.start, passage.stop)
            for addition in change.additions
            for number, passage in enumerate(addition.passages)
        ]
        if len(keys) != (given := sum(map(len, vectors))):
            raise ValueError(f"{given} vectors for {len(keys)} passages")
        info, meta = (None, {}) if not keys else self._write(name, first_row, keys, vectors)
        with database.transaction():
            if change.deleted_keys:
                delete_documents(database, change.deleted_keys)
            for update in change.updates:
                values = (update.metadata, update.digest, update.source, update.places)
                update_document(database, update.doc_key, *values)
            placed = []
            for addition in change.additions:
                stored = (addition.metadata, addition.digest, addition.places)
                doc_key = insert_document(database, addition.document, *stored)
                rows = [
                    (row + number, doc_key, number, passage.start, passage.stop)
                    for number, passage in enumerate(addition.passages)
                ]
                placed.append((addition.document, rows))
                row += len(rows)
            add_fields(database, change.fields)
            if info is not None:
                insert_passages(database, placed)
                database.add_segment(info)
                database.set_meta("next_row", row)
                database.take_file_name()
                for entry, value in meta.items():
                    database.set_meta(entry, value)

    def _write(
        self, name: str, first_row: int, keys: list[int], vectors: Sequence[Vectors]
    ) -> tuple[SegmentInfo, Meta]:
        with writing(self.folder):
            return self.payload.write(
                self.folder / SEGMENT_FOLDER / name,
                vectors,
                np.arange(first_row, first_row + len(keys), dtype=np.int64),
                np.asarray(keys, np.uint64),
            )
