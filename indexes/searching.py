"""From queries to candidate rows: the ANN structure for what it covers, exact search for the rest, one merge."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import IndexFileError

from .database import ANN_CHUNK_BYTES, AnnInfo
from .exact import Candidates
from .segment import FloatArray, RowArray
from .snapshot import Snapshot

if TYPE_CHECKING:
    from .ann import AnnIndex, Knobs

# Where (rows allowed) * (their share of all) is below this, exact search over them is faster than a structure that meets
# mostly rows it may not return: HNSW's effort grows as 1 / share, that of exact search with the rows. Measured on 100,000
# vectors of 384 dimensions with a fifth allowed: 0.28 ms a query exactly, 1.2 ms through the graph.
EXACT_WORTH = 5_000


class AnnFile:
    """The ANN file that a snapshot names, loaded when first searched. An open file stays, even once it is replaced."""

    def __init__(self, folder: Path, info: AnnInfo) -> None:
        self.path, self.info = folder / info.name, info
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self._index: AnnIndex | None = None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def check(self) -> None:
        """Compare the file with what the database says of it: a damaged graph would lead faiss out of its memory.

        Raises:
            IndexFileError: the size or a checksum differs.
        """
        size = os.fstat(self._fd).st_size
        if size != self.info.num_bytes:
            raise self._damaged(f"{size:,} bytes; the database says {self.info.num_bytes:,}")
        for number, (checksum, expected) in enumerate(
            zip(file_checksums(self._fd), self.info.checksums, strict=True)
        ):
            if checksum != expected:
                raise self._damaged(f"the checksum of its block {number} does not match: bytes were changed")

    def _damaged(self, what: str) -> IndexFileError:
        return IndexFileError(
            f"{self.path}: {what}. It can be made again: embedkit index repair --index {self.path.parent}"
        )

    def load(self) -> AnnIndex:
        if self._index is None:
            from .ann import AnnIndex

            self.check()
            # The descriptor, not the name: another process may have replaced the file since.
            self._index = AnnIndex.load(Path(f"/dev/fd/{self._fd}"), self.info.kind)  # type: ignore[arg-type]  # it was written from a Kind
        return self._index


def file_checksums(fd: int) -> list[int]:
    """Return the CRC-32 of each ANN_CHUNK_BYTES of an open file."""
    size = os.fstat(fd).st_size
    return [zlib.crc32(os.pread(fd, ANN_CHUNK_BYTES, at)) for at in range(0, size, ANN_CHUNK_BYTES)]


def search_rows(
    snapshot: Snapshot,
    ann: AnnFile | None,
    queries: FloatArray,
    k: int,
    *,
    rows: RowArray | None = None,
    exact: bool = False,
    knobs: Knobs | None = None,
    device: str | None = None,
) -> Candidates:
    """Return the candidates for the best k of each prepared query, scored by the stored vectors.

    `rows` are those that a filter lets pass, ascending.
    """
    mask, matching = snapshot.restrict(rows)
    covered = 0 if ann is None else ann.info.rows
    share = min(1.0, matching / max(1, covered, snapshot.num_rows))
    selective = share < 1 and matching * share < EXACT_WORTH
    if ann is None or exact or selective or not covered:
        if device is not None:
            from .gpu import search_device

            return search_device(snapshot, queries, k, mask=mask, matching=matching, device=device)
        return snapshot.search_exact(queries, k, rows=rows)
    if rows is None and (mask is not None or covered != snapshot.rows_up_to(ann.info.last_row)):
        mask = snapshot.present  # a compaction may have dropped rows that the structure still holds
    found = ann.load().search(queries, k, knobs or ann.info.knobs, mask=mask, share=share)
    found = snapshot.rescore(queries, found)
    if ann.info.last_row < snapshot.next_row - 1:
        newer = snapshot.search_exact(queries, k, rows=rows, first_row=ann.info.last_row + 1)
        found = found.merge(newer, found.rows.shape[1] + newer.rows.shape[1])
    # A graph or the lists probed may hold fewer rows than were asked for: those queries get the exact answer.
    short = np.flatnonzero((found.rows >= 0).sum(axis=1) < min(k, matching))
    if len(short):
        wider = snapshot.search_exact(queries[short], k, rows=rows)
        width = max(found.rows.shape[1], wider.rows.shape[1])
        padded = Candidates.none(len(queries), width)
        padded.scores[:, : found.rows.shape[1]], padded.rows[:, : found.rows.shape[1]] = (
            found.scores,
            found.rows,
        )
        padded.scores[short], padded.rows[short] = -np.inf, -1
        padded.scores[short, : wider.rows.shape[1]] = wider.scores
        padded.rows[short, : wider.rows.shape[1]] = wider.rows
        found = padded
    return found
