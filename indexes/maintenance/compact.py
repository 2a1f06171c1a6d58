"""Merging segments and dropping deleted vectors: new files, one transaction that names them, then the old files go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..search.snapshot import SEGMENT_FOLDER, Snapshot
from ..storage.commit import SEGMENT_PATTERN, writing
from ..storage.segment import Codes, Segment, SegmentInfo, write_segment

if TYPE_CHECKING:
    from ..store import Index

_CHUNK_ROWS = 8192


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

    Rows keep their numbers, so the ANN structure and the text index stay as they are.

    Raises:
        IndexFileError: a segment is damaged (nothing has changed then), or the disk is full.
    """
    index.need_writer()
    return _compact(index)


def _compact(index: Index) -> Iterator[CompactReport]:
    started = perf_counter()
    before = folder_bytes(index)
    snapshot = index.snapshot
    deleted = sum(map(len, snapshot.segments)) - snapshot.num_rows
    yield CompactReport(0, snapshot.num_rows, 0, before, 0, 0.0)
    if deleted or len(snapshot.segments) > 1:
        merge(index, snapshot, snapshot.segments)
    database = index.database
    with database.transaction():
        database.execute("INSERT INTO text_index (text_index) VALUES ('optimize')")
    database.vacuum()
    index.refresh()
    rows = index.snapshot.num_rows
    yield CompactReport(rows, rows, deleted, before, folder_bytes(index), perf_counter() - started)


def folder_bytes(index: Index) -> int:
    return sum(path.stat().st_size for path in index.path.rglob("*") if path.is_file())


def merge_newest(index: Index) -> None:
    """Merge the newest segments, as far back as one is not twice as large as all after it together.

    A vector is so written anew only when its segment has about doubled: log2(N) times at most.
    """
    segments = index.snapshot.segments
    first, total = len(segments) - 1, len(segments[-1])
    while first > 0 and len(segments[first - 1]) <= 2 * total:
        first -= 1
        total += len(segments[first])
    first = min(first, len(segments) - 2)
    merge(index, index.snapshot, segments[first:])


def merge(index: Index, snapshot: Snapshot, segments: Sequence[Segment]) -> None:
    """Put the living rows of neighbouring segments into one new segment, in one commit.

    Raises:
        IndexFileError: a segment is damaged, so that nothing has changed; or the disk is full.
    """
    database = index.database
    name = SEGMENT_PATTERN.format(database.meta("next_file"))
    path = index.path / SEGMENT_FOLDER / name
    kept = [_living(snapshot, segment) for segment in segments]
    rows = np.concatenate([segment.rows[at] for segment, at in zip(segments, kept, strict=True)])
    info: SegmentInfo | None = None
    if len(rows):
        with writing(index.path):
            path.unlink(missing_ok=True)
            info = write_segment(
                path,
                _codes(segments, kept),
                storage=snapshot.settings.storage,
                rows=rows,
                keys=np.concatenate([segment.keys[at] for segment, at in zip(segments, kept, strict=True)]),
                dimension=snapshot.settings.dimension,
                scales=segments[0].scales,
            )
    with database.transaction():
        database.next_file_name(SEGMENT_PATTERN)
        database.remove_segments([segment.info.name for segment in segments])
        if info is not None:
            database.add_segment(info)
        first, last = int(segments[0].rows[0]), int(segments[-1].rows[-1])
        database.remove_tombstones(first, last)
    index.need_writer().remove_orphans()


def _living(snapshot: Snapshot, segment: Segment) -> npt.NDArray[np.int64]:
    if snapshot.alive is None:
        return np.arange(len(segment), dtype=np.int64)
    return np.flatnonzero(snapshot.alive[segment.rows]).astype(np.int64)


def _codes(segments: Sequence[Segment], kept: Sequence[npt.NDArray[np.int64]]) -> Iterator[Codes]:
    for segment, positions in zip(segments, kept, strict=True):
        for start in range(0, len(positions), _CHUNK_ROWS):
            chunk = positions[start : start + _CHUNK_ROWS]
            segment.check(int(chunk[0]), int(chunk[-1]) + 1)
            yield segment.codes[chunk]
            segment.release()
