"""Merging segments: the living rows of several in one new file, in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .commit import Writer
from .database import Database
from .faults import writing
from .layout import SEGMENT_FOLDER, SEGMENT_PATTERN
from .payload import Payload
from .segment import MappedSegment
from .segment_file import SegmentInfo

Positions = npt.NDArray[np.int64]
Alive = npt.NDArray[np.bool_] | None  # by row number; None where every row is


def merge_newest(writer: Writer, segments: Sequence[MappedSegment], alive: Alive) -> None:
    """Merge the newest segments, as far back as one is not twice as large as all after it together.

    A vector is so written again only when its segment has about doubled: log2(N) times at most.
    """
    first, total = len(segments) - 1, len(segments[-1])
    while first > 0 and len(segments[first - 1]) <= 2 * total:
        first -= 1
        total += len(segments[first])
    first = min(first, len(segments) - 2)
    merge(writer, segments[first:], alive)


def merge(writer: Writer, segments: Sequence[MappedSegment], alive: Alive) -> None:
    """Put the living rows of neighbouring segments into one new segment, in one commit.

    Raises:
        IndexFileError: a segment is damaged, so that nothing has changed; or the disk is full.
    """
    database = writer.database
    kept = [_living(alive, segment) for segment in segments]
    merged = write_kept(writer.folder, database, writer.payload, segments, kept)
    with database.transaction():
        put_in_place_of(segments, merged, database)
        first, last = int(segments[0].rows[0]), int(segments[-1].rows[-1])
        database.remove_tombstones(first, last)
    writer.remove_orphans()


def write_kept(
    folder: Path,
    database: Database,
    payload: Payload,
    segments: Sequence[MappedSegment],
    kept: Sequence[Positions],
) -> SegmentInfo | None:
    """Write some rows of neighbouring segments, given by their positions in each, to one new file; None where there are none.

    Raises:
        IndexFileError: a block that holds one of them is damaged, or the disk is full.
    """
    parts = list(zip(segments, kept, strict=True))
    rows = np.concatenate([segment.rows[at] for segment, at in parts])
    if not len(rows):
        return None
    with writing(folder):
        return payload.write_kept(
            folder / SEGMENT_FOLDER / database.next_file_name(SEGMENT_PATTERN),
            parts,
            rows,
            np.concatenate([segment.keys[at] for segment, at in parts]),
        )


def put_in_place_of(
    segments: Sequence[MappedSegment], merged: SegmentInfo | None, database: Database
) -> None:
    """Name what `write_kept` wrote in place of the segments; to be called within a transaction."""
    database.take_file_name()
    database.remove_segments([segment.info.name for segment in segments])
    if merged is not None:
        database.add_segment(merged)


def _living(alive: Alive, segment: MappedSegment) -> Positions:
    if alive is None:
        return np.arange(len(segment), dtype=np.int64)
    return np.flatnonzero(alive[segment.rows]).astype(np.int64)
