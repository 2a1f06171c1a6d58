"""The file of a segment of sparse vectors, immutable and checksummed by block; its layout and its writing.

Layout, little-endian, each part on a border of 64 bytes:
    header         the struct `HEADER`
    rows           N int64, ascending: the number that a passage's row keeps for life
    keys           N uint64: what ties a row to the text it was made from (see `hashes.passage_key`)
    starts         N + 1 int64: row i has the entries from starts[i] to starts[i + 1]
    scales         N float32: a weight is its code times the row's scale
    block lists    B + 1 int64: block i of BLOCK_ROWS rows has the lists from there to the next
    checksums      one CRC-32 for each PAYLOAD_ROWS rows of terms, then of codes; then for each block of each part that follows
    terms          (entries,) uint16 or uint32, ascending in a row
    codes          (entries,) uint8
    places         (entries,) uint16: the rows of each list by their places in the block, ascending
    list codes     (entries,) uint8
    list terms     L uint32, ascending in a block
    list starts    L + 1 int64: list i has the entries of places and list codes from there to the next
    list largest   L float32: no weight of the list is larger
The database holds the CRC-32 of everything before the terms, and so, through the checksums, of all of the file. Lists repeat what rows
say, so that whatever rows a file holds, it also holds the way to them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..storage.codes import RowArray
from ..storage.new_file import unnamed_file
from ..storage.segment_file import SegmentInfo, filled_head, placed
from .lists import BLOCK_ROWS, BlockLists, make_lists
from .rows import SparseRows, term_type

MAGIC = b"EMBKSPS\x01"
HEADER = struct.Struct("<8sIIQQQ")  # magic, dimension, rows in a block, rows, entries, lists
PAYLOAD_ROWS = 64
ROW_PARTS = ("terms", "codes")
LIST_PARTS = ("places", "list codes", "list terms", "list starts", "list largest")


@dataclass(frozen=True)
class SparseLayout:
    """Where each part of a segment stands, in bytes from the start of the file."""

    dimension: int
    rows: int
    entries: int
    lists: int

    @property
    def num_blocks(self) -> int:
        return -(-self.rows // BLOCK_ROWS)

    @property
    def payload_blocks(self) -> int:
        return -(-self.rows // PAYLOAD_ROWS)

    @property
    def types(self) -> dict[str, np.dtype[Any]]:  # Any: of any width
        """What the numbers of each part are."""
        names: dict[str, Any] = {  # Any: what np.dtype takes
            "rows": "<i8",
            "keys": "<u8",
            "starts": "<i8",
            "scales": "<f4",
            "block lists": "<i8",
            "checksums": "<u4",
            "terms": np.dtype(term_type(self.dimension)).newbyteorder("<"),
            "codes": "u1",
            "places": "<u2",
            "list codes": "u1",
            "list terms": "<u4",
            "list starts": "<i8",
            "list largest": "<f4",
        }
        return {name: np.dtype(kind) for name, kind in names.items()}

    def offsets(self) -> dict[str, tuple[int, int]]:
        """Return the (offset, bytes) of each part, in file order."""
        counts = {
            "rows": self.rows,
            "keys": self.rows,
            "starts": self.rows + 1,
            "scales": self.rows,
            "block lists": self.num_blocks + 1,
            "checksums": len(ROW_PARTS) * self.payload_blocks + len(LIST_PARTS) * self.num_blocks,
            **dict.fromkeys(("terms", "codes", "places", "list codes"), self.entries),
            "list terms": self.lists,
            "list starts": self.lists + 1,
            "list largest": self.lists,
        }
        types = self.types
        sizes = {"header": HEADER.size} | {name: types[name].itemsize * n for name, n in counts.items()}
        return placed(sizes)


def write_segment(
    path: Path,
    blocks: Iterable[SparseRows],
    *,
    dimension: int,
    counts: RowArray,
    rows: RowArray,
    keys: npt.NDArray[np.uint64],
) -> SegmentInfo:
    """Write rows, which come in blocks of BLOCK_ROWS (the last may be shorter), to a file that no transaction names yet.

    `counts` (N,) says beforehand how many entries each row has.
    """
    plain = SparseLayout(dimension, len(rows), int(counts.sum()), 0)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    with unnamed_file(path) as file:
        written = _Written(file, plain, starts)
        for block in blocks:
            written.add(block)
        layout = SparseLayout(dimension, len(rows), plain.entries, written.num_lists)
        written.finish(layout)
        parts = layout.offsets()
        num_bytes = sum(parts["list largest"])
        file.truncate(num_bytes)
        scales = np.concatenate([np.empty(0, np.float32), *written.scales])
        values = {"rows": rows, "keys": keys, "starts": starts, "scales": scales}
        values |= {"block lists": np.array(written.block_lists), "checksums": np.array(written.checksums())}
        header = HEADER.pack(MAGIC, dimension, BLOCK_ROWS, len(rows), layout.entries, layout.lists)
        types = layout.types
        data = {name: value.astype(types[name]).tobytes() for name, value in values.items()}
        head = filled_head(parts, {"header": header, **data})
        file.seek(0)
        file.write(head)
    return SegmentInfo(path.name, int(rows[0]), len(rows), num_bytes, zlib.crc32(head))


@dataclass
class _Written:
    """The parts behind the head, as they grow block by block."""

    file: BinaryIO
    layout: SparseLayout
    starts: RowArray
    num_rows: int = 0
    block_lists: list[int] = field(default_factory=lambda: [0])
    scales: list[npt.NDArray[np.float32]] = field(default_factory=list)
    sums: dict[str, list[int]] = field(
        default_factory=lambda: {name: [] for name in (*ROW_PARTS, *LIST_PARTS)}
    )
    tables: list[BlockLists] = field(default_factory=list)  # without their entries

    @property
    def num_lists(self) -> int:
        return self.block_lists[-1]

    def add(self, block: SparseRows) -> None:
        """Write the rows of one block and their lists."""
        first = int(self.starts[self.num_rows])
        lists = make_lists(block)
        for name, values in (
            ("terms", block.terms),
            ("codes", block.codes),
            ("places", lists.places),
            ("list codes", lists.codes),
        ):
            kind = self.layout.types[name]
            data = values.astype(kind, copy=False)
            self.file.seek(self.layout.offsets()[name][0] + first * kind.itemsize)
            self.file.write(data.tobytes())
            pieces = _cut(block.starts) if name in ROW_PARTS else [(0, len(data))]
            self.sums[name] += [zlib.crc32(data[start:stop].tobytes()) for start, stop in pieces]
        self.scales.append(block.scales)
        nothing = np.empty(0, np.uint16), np.empty(0, np.uint8)
        self.tables.append(BlockLists(lists.terms, lists.starts + first, lists.largest, *nothing))
        self.num_rows += len(block)
        self.block_lists.append(self.num_lists + len(lists.terms))

    def finish(self, layout: SparseLayout) -> None:
        """Write the tables of all lists."""
        end = np.array([layout.entries], np.int64)
        tables = {
            "list terms": np.concatenate([np.empty(0, np.uint32), *(table.terms for table in self.tables)]),
            "list starts": np.concatenate([*(table.starts for table in self.tables), end]),
            "list largest": np.concatenate(
                [np.empty(0, np.float32), *(table.largest for table in self.tables)]
            ),
        }
        for name, values in tables.items():
            data = values.astype(layout.types[name], copy=False)
            self.file.seek(layout.offsets()[name][0])
            self.file.write(data.tobytes())
            one_more = 1 if name == "list starts" else 0  # where the block's last list ends
            for first, last in zip(self.block_lists[:-1], self.block_lists[1:], strict=True):
                self.sums[name].append(zlib.crc32(data[first : last + one_more].tobytes()))

    def checksums(self) -> list[int]:
        return [checksum for name in (*ROW_PARTS, *LIST_PARTS) for checksum in self.sums[name]]


def _cut(starts: RowArray) -> Iterator[tuple[int, int]]:
    """Yield the first entry of each PAYLOAD_ROWS rows, and the one behind their last."""
    firsts = [*starts[:-1:PAYLOAD_ROWS].tolist(), int(starts[-1])]
    yield from pairwise(firsts)
