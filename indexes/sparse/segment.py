"""A segment of sparse vectors as it is read: mapped into memory, each block of it checked when it is first read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.errors import IndexFileError
from embedkit.native.postings import Postings
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.retrieval.token_vectors import spans

from ..storage.codes import FloatArray, RowArray
from ..storage.segment import MappedSegment
from ..storage.segment_file import SegmentInfo
from .lists import BLOCK_ROWS
from .rows import Bytes, SparseRows, Terms
from .segment_file import HEADER, LIST_PARTS, PAYLOAD_ROWS, SparseLayout


class SparseSegment(MappedSegment):
    """A segment whose row i has the entries from starts[i] to starts[i + 1] of `terms` and `codes`, which are read through checks."""

    def __init__(self, path: Path, info: SegmentInfo, dimension: int) -> None:
        """Map the file and check everything in it before the terms.

        Raises:
            FileNotFoundError: it is gone (a reader that meets this takes a newer snapshot).
            IndexFileError: its size, header or checksum is not what the database says.
        """
        super().__init__(path, info)
        if info.num_bytes < HEADER.size:
            self._check_head(info.num_bytes)
        *_, entries, lists = HEADER.unpack(memoryview(self._map)[: HEADER.size])
        self.dimension = dimension
        self._layout = layout = SparseLayout(dimension, info.rows, entries, lists)
        offsets, types = layout.offsets(), layout.types
        if sum(offsets["list largest"]) != info.num_bytes:
            self._check_head(HEADER.size)  # the header lies: its checksum cannot be right
        self._check_head(offsets["terms"][0])
        self._parts = parts = {name: self._part(offsets[name], types[name]) for name in types}
        self._take(parts["rows"], parts["keys"], parts["checksums"])
        self.starts: RowArray = parts["starts"]
        self.scales: FloatArray = parts["scales"]
        self._terms: Terms = parts["terms"]
        self._codes: Bytes = parts["codes"]

    @property
    def postings(self) -> Postings:
        """The rows and their lists as the kernel reads them; `check_all` comes first."""
        parts = self._parts
        return Postings(
            starts=self.starts,
            terms=self._terms,
            codes=self._codes,
            scales=self.scales,
            block_lists=parts["block lists"],
            list_terms=parts["list terms"],
            list_starts=parts["list starts"],
            list_largest=parts["list largest"],
            places=parts["places"],
            posting_codes=parts["list codes"],
            block_rows=BLOCK_ROWS,
        )

    def check_all(self) -> None:
        """Compare all checksums, each once: a search may read anything.

        Raises:
            IndexFileError: a block holds other bytes than were written.
        """
        self._check_blocks(np.arange(len(self._checksums)))

    def check_positions(self, positions: RowArray) -> None:
        blocks = positions // PAYLOAD_ROWS
        self._check_blocks(np.concatenate([blocks, self._layout.payload_blocks + blocks]))

    def _block(self, number: int) -> memoryview:
        payload = self._layout.payload_blocks
        if number < 2 * payload:
            first = number % payload * PAYLOAD_ROWS
            values = self._terms if number < payload else self._codes
            return values[self._entries(first, PAYLOAD_ROWS)].data
        part, block = divmod(number - 2 * payload, self._layout.num_blocks)
        name = LIST_PARTS[part]
        if part < 2:
            return self._parts[name][self._entries(block * BLOCK_ROWS, BLOCK_ROWS)].data
        first, last = self._parts["block lists"][block : block + 2].tolist()
        return self._parts[name][first : last + (name == "list starts")].data

    def _entries(self, first: int, count: int) -> slice:
        return slice(int(self.starts[first]), int(self.starts[min(len(self), first + count)]))

    def _named(self, number: int) -> str:
        payload = self._layout.payload_blocks
        if number >= 2 * payload:
            return "the lists of its rows by term"
        first = number % payload * PAYLOAD_ROWS
        return f"rows {self.rows[first]} to {self.rows[min(len(self), first + PAYLOAD_ROWS) - 1]}"

    def damaged_rows(self) -> RowArray:
        bad = np.zeros(len(self), bool)
        payload = self._layout.payload_blocks
        for number in range(2 * payload):
            first = number % payload * PAYLOAD_ROWS
            try:
                self._check_blocks(np.array([number]))
            except IndexFileError:
                bad[first : first + PAYLOAD_ROWS] = True
        self.release()
        return self.rows[bad]

    def damage_of_lists(self) -> str | None:
        try:
            self._check_blocks(np.arange(2 * self._layout.payload_blocks, len(self._checksums)))
        except IndexFileError:
            return "the lists of its rows by term do not match their checksums"
        return None

    def counts(self, positions: RowArray) -> RowArray:
        """Return how many terms the rows at some positions have."""
        return self.starts[positions + 1] - self.starts[positions]

    def encoded(self, positions: RowArray) -> SparseRows:
        """Return the rows at some positions as they are stored."""
        self.check_positions(positions)
        counts = self.counts(positions)
        at = spans(self.starts[positions], counts)
        return SparseRows(counts, self._terms[at], self._codes[at], self.scales[positions])

    def gather(self, positions: RowArray) -> SparseVectors:
        """Return the weights of the rows at some positions."""
        return self.encoded(positions).decode(self.dimension)

    def stored(self, positions: RowArray) -> Sequence[bytes]:
        found = self.encoded(positions)
        return [part.tobytes() for part in (found.counts, found.terms, found.codes, found.scales)]

    @property
    def meaning(self) -> bytes:
        return b""

    def block(self, number: int) -> npt.NDArray[np.int64]:
        """Return the positions of a block of rows."""
        return np.arange(number * BLOCK_ROWS, min(len(self), (number + 1) * BLOCK_ROWS))
