"""How an index changes: segment file, fsync, then one transaction that names it with its documents.

Whatever happens before the transaction's end leaves a file that no transaction names; the next writer removes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedkit.data.records import Document
from embedkit.errors import IndexMismatchError

from .codes import FloatArray, calibrate, encode
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
from .segment_file import SegmentInfo, write_segment
from .settings import Settings

WHOLE = (Passage(0, -1),)  # the passage that is all of its text


@dataclass(frozen=True, slots=True)
class Addition:
    """A document that goes in, with one vector for each of its passages."""

    document: Document
    metadata: str
    digest: bytes
    passages: Sequence[Passage] = WHOLE
    places: str = ""  # where the text stands in its file, as it is stored

    @classmethod
    def of(cls, document: Document, passages: Sequence[Passage] = WHOLE, *, vector: bytes = b"") -> Addition:
        """Take a document in; `vector` are the bytes of one that was not made from its text."""
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


def prepare_vectors(vectors: FloatArray, settings: Settings, names: Sequence[str]) -> FloatArray:
    """Check (N, E) vectors and, for cosine, bring them to unit length. `names` says what each is in a message.

    Raises:
        IndexMismatchError: a wrong shape, a vector that is not finite, or one without a direction.
    """
    wanted = (len(names), settings.dimension)
    if vectors.shape != wanted:
        raise IndexMismatchError(
            f"vectors have shape {vectors.shape}; {len(names)} texts in an index of dimension {settings.dimension} "
            f"need {wanted}. Use the model that the index was built with"
        )
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        at = int(np.argmin(finite))
        raise IndexMismatchError(
            f"the vector of {names[at]} (number {at + 1} of {len(names)}) holds NaN or infinity; "
            "an index takes finite numbers. Check the model that made it"
        )
    if settings.metric == "cosine" and len(vectors):
        norms = np.sqrt(np.einsum("ne,ne->n", vectors, vectors, dtype=np.float64))
        if not norms.all():
            at = int(np.argmin(norms))
            raise IndexMismatchError(
                f"the vector of {names[at]} (number {at + 1} of {len(names)}) is all zeros; "
                "cosine needs a direction. Leave it out, or make a new index with: embedkit index build --metric dot"
            )
        vectors = (vectors / norms[:, None]).astype(np.float32)
    if settings.storage == "float16" and len(vectors) and np.abs(vectors).max() > 65504:
        at = int(np.argmax(np.abs(vectors).max(axis=1)))
        raise IndexMismatchError(
            f"the vector of {names[at]} holds {np.abs(vectors[at]).max():g}; float16 reaches 65504. "
            "Make a new index with: embedkit index build --storage float32"
        )
    return vectors


def with_direction(vectors: FloatArray, settings: Settings) -> NDArray[np.bool_]:
    """Say which of (N, E) vectors an index can take: for cosine those that are not all zeros, as of a text without tokens."""
    if settings.metric != "cosine":
        return np.ones(len(vectors), np.bool_)
    return np.asarray(vectors.any(axis=1))


class Writer:
    """Applies changes to an index whose lock this process holds."""

    def __init__(self, folder: Path, database: Database, settings: Settings) -> None:
        self.folder, self.database, self.settings = folder, database, settings
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

    def commit(self, change: Change, *vectors: FloatArray) -> None:
        """Apply a change; vectors (N, E), in any number of parts, are those of its passages, in order, already prepared.

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
        scales = self._scales(vectors)
        info = None if not keys else self._write(name, first_row, keys, vectors, scales)
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
                if scales is not None and database.meta("scales") is None:
                    database.set_meta("scales", scales.astype("<f4").tobytes())

    def _scales(self, vectors: Sequence[FloatArray]) -> FloatArray | None:
        """Return the steps of int8, chosen when the first vectors come."""
        if self.settings.storage not in ("int8", "binary") or not any(map(len, vectors)):
            return None
        stored = self.database.meta("scales")
        return calibrate(np.concatenate(vectors)) if stored is None else np.frombuffer(stored, "<f4")

    def _write(
        self,
        name: str,
        first_row: int,
        keys: list[int],
        vectors: Sequence[FloatArray],
        scales: FloatArray | None,
    ) -> SegmentInfo:
        with writing(self.folder):
            return write_segment(
                self.folder / SEGMENT_FOLDER / name,
                (encode(part, self.settings.storage, scales) for part in vectors),
                storage=self.settings.storage,
                rows=np.arange(first_row, first_row + len(keys), dtype=np.int64),
                keys=np.asarray(keys, np.uint64),
                dimension=self.settings.dimension,
                scales=scales,
            )
