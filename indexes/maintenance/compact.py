"""Merging segments and dropping deleted vectors: new files, one transaction that names them, then the old files go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from ..storage.commit import Writer
from ..storage.merging import merge
from ..storage.schema import FORMAT_VERSION

if TYPE_CHECKING:
    from ..store import Index


@dataclass(frozen=True)
class CompactReport:
    """How far a compaction is."""

    rows_done: int
    rows_total: int
    dropped: int
    bytes_before: int
    bytes_after: int  # 0 until it is done
    seconds: float


def compact(index: Index) -> Iterator[CompactReport]:
    """Write all living vectors into one segment, drop the deleted ones, and shrink the database.

    Rows keep their numbers, so the ANN structure and the text index stay as they are; but an index of an earlier
    format version becomes one of this.

    Raises:
        IndexFileError: a segment is damaged (nothing has changed then), or the disk is full.
    """
    return _compact(index, index.need_writer())


def _compact(index: Index, writer: Writer) -> Iterator[CompactReport]:
    started = perf_counter()
    before = folder_bytes(index)
    snapshot = index.snapshot
    deleted = sum(map(len, snapshot.segments)) - snapshot.num_rows
    yield CompactReport(0, snapshot.num_rows, 0, before, 0, 0.0)
    if deleted or len(snapshot.segments) > 1:
        merge(writer, snapshot.segments, snapshot.alive)
    database = index.database
    with database.transaction():
        if database.version < FORMAT_VERSION:
            database.upgrade()
        database.execute("INSERT INTO text_index (text_index) VALUES ('optimize')")
    database.vacuum()
    index.refresh()
    rows = index.snapshot.num_rows
    yield CompactReport(rows, rows, deleted, before, folder_bytes(index), perf_counter() - started)


def folder_bytes(index: Index) -> int:
    return sum(path.stat().st_size for path in index.path.rglob("*") if path.is_file())
