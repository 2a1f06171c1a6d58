"""Merging segments: the living rows of several in one new file, in one commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .codes import Codes
from .commit import Writer
from .faults import writing
from .layout import SEGMENT_FOLDER, SEGMENT_PATTERN
from .segment import Segment
from .segment_file import SegmentInfo, write_segment

Alive = npt.NDArray[np.bool_] | None  # by row number; None where every row is

_CHUNK_ROWS = 8192


def merge_newest(writer: Writer, segments: Sequence[Segment], alive: Alive) -> None:
    """Merge the newest segments, as far back as one is not twice as large as all after it together.

    A vector is so written again only when its segment has about doubled: log2(N) times at most.
    """
    first, total = len(segments) - 1, len(segments[-1])
    while first > 0 and len(segments[first - 1]) <= 2 * total:
        first -= 1
        total += len(segments[first])
    first = min(first, len(segments) - 2)
    merge(writer, segments[first:], alive)


def merge(writer: Writer, segments: Sequence[Segment], alive: Alive) -> None:
    """Put the living rows of neighbouring segments into one new segment, in one commit.

    Raises:
        IndexFileError: a segment is damaged, so that nothing has changed; or the disk is full.
    """
    database = writer.database
    name = database.next_file_name(SEGMENT_PATTERN)
    path = writer.folder / SEGMENT_FOLDER / name
    kept = [_living(alive, segment) for segment in segments]
    rows = np.concatenate([segment.rows[at] for segment, at in zip(segments, kept, strict=True)])
    info: SegmentInfo | None = None
    if len(rows):
        with writing(writer.folder):
            info = write_segment(
                path,
                _codes(segments, kept),
                storage=writer.settings.storage,
                rows=rows,
                keys=np.concatenate([segment.keys[at] for segment, at in zip(segments, kept, strict=True)]),
                dimension=writer.settings.dimension,
                scales=segments[0].scales,
            )
    with database.transaction():
        database.take_file_name()
        database.remove_segments([segment.info.name for segment in segments])
        if info is not None:
            database.add_segment(info)
        first, last = int(segments[0].rows[0]), int(segments[-1].rows[-1])
        database.remove_tombstones(first, last)
    writer.remove_orphans()


def _living(alive: Alive, segment: Segment) -> npt.NDArray[np.int64]:
    if alive is None:
        return np.arange(len(segment), dtype=np.int64)
    return np.flatnonzero(alive[segment.rows]).astype(np.int64)


def _codes(segments: Sequence[Segment], kept: Sequence[npt.NDArray[np.int64]]) -> Iterator[Codes]:
    for segment, positions in zip(segments, kept, strict=True):
        for start in range(0, len(positions), _CHUNK_ROWS):
            chunk = positions[start : start + _CHUNK_ROWS]
            segment.check(int(chunk[0]), int(chunk[-1]) + 1)
            yield segment.codes[chunk]
            segment.release()
