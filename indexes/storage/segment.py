"""A segment as it is read: mapped into memory, each block of it checked when it is first read.

So opening a large index costs nothing, and a damaged one is refused.
"""

from __future__ import annotations

import mmap
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.errors import IndexFileError

from ..types import Storage
from .codes import CODE_TYPES, Codes, FloatArray, RowArray, decode
from .segment_file import BLOCK_ROWS, Layout, SegmentInfo


class MappedSegment(ABC):
    """The file of a segment, mapped into memory: its rows, which ascend, their keys, and blocks with a checksum each."""

    rows: RowArray
    keys: npt.NDArray[np.uint64]

    def __init__(self, path: Path, info: SegmentInfo) -> None:
        """Map the file, whose size is compared with what the database says.

        Raises:
            FileNotFoundError: it is gone (a reader that meets this takes a newer snapshot).
            IndexFileError: its size is another.
        """
        self.path, self.info = path, info
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != info.num_bytes:
                raise IndexFileError(
                    f"{path}: {size:,} bytes; the database says {info.num_bytes:,}. "
                    f"The file was cut or replaced; run: embedkit index repair {path.parent.parent}"
                )
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _check_head(self, size: int) -> None:
        """Compare the checksum of the first `size` bytes with the database's.

        Raises:
            IndexFileError: it differs.
        """
        if size > len(self._map) or zlib.crc32(memoryview(self._map)[:size]) != self.info.checksum:
            raise IndexFileError(
                f"{self.path}: the header's checksum is not the database's: bytes were changed. "
                f"Run: embedkit index repair {self.path.parent.parent}"
            )

    def _take(self, rows: RowArray, keys: npt.NDArray[np.uint64], checksums: npt.NDArray[np.uint32]) -> None:
        self.rows, self.keys, self._checksums = rows, keys, checksums
        # Until a compaction leaves some out, a segment's rows are consecutive: no search for each is needed.
        self._consecutive = int(rows[-1]) - self.info.first_row == len(rows) - 1
        self._checked = np.zeros(len(checksums), bool)
        self._unchecked = len(checksums)

    def _part(self, part: tuple[int, int], dtype: Any) -> Codes:  # Any: what np.dtype takes
        offset, size = part
        kind = np.dtype(dtype)
        if not size:
            return np.empty(0, kind)
        return np.frombuffer(self._map, kind, count=size // kind.itemsize, offset=offset)

    def __len__(self) -> int:
        return self.info.rows

    @abstractmethod
    def check_positions(self, positions: RowArray) -> None:
        """Compare the checksums of the blocks that hold some positions, each once.

        Raises:
            IndexFileError: a block holds other bytes than were written.
        """

    @abstractmethod
    def stored(self, positions: RowArray) -> Sequence[bytes]:
        """Return the bytes of the vectors at some positions, checked: one piece or several, each in the order of the rows."""

    @property
    @abstractmethod
    def meaning(self) -> bytes:
        """What these bytes mean, where that is not the same in every index."""

    @abstractmethod
    def damaged_rows(self) -> RowArray:
        """Return the rows that are in a block which does not match its checksum."""

    def damage_of_lists(self) -> str | None:
        """Say what is damaged of that which only repeats what the rows hold, and can be written again; None where nothing is."""
        return None

    @abstractmethod
    def _block(self, number: int) -> memoryview:
        """Return the bytes that a checksum is of."""

    @abstractmethod
    def _named(self, number: int) -> str:
        """Say in a message what a block holds."""

    def _check_blocks(self, numbers: RowArray) -> None:
        if not self._unchecked:
            return
        for number in sorted(set(numbers[~self._checked[numbers]].tolist())):
            if zlib.crc32(self._block(number)) != self._checksums[number]:
                raise IndexFileError(
                    f"{self.path}: the checksum of {self._named(number)} does not match: bytes were changed. "
                    f"Run: embedkit index repair {self.path.parent.parent}"
                )
            self._checked[number] = True
        # Counted, not counted down: several threads may have checked the same block.
        self._unchecked = len(self._checked) - int(np.count_nonzero(self._checked))

    def positions(self, rows: RowArray) -> RowArray:
        """Return where rows stand, or would stand; the caller looks whether they do."""
        if self._consecutive:
            return np.clip(rows - self.info.first_row, 0, len(self) - 1)
        return np.minimum(np.searchsorted(self.rows, rows), len(self) - 1).astype(np.int64, copy=False)

    def release(self) -> None:
        """Give the pages of the file back to the system: a pass over a large index need not stay in memory."""
        if hasattr(self._map, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class Segment(MappedSegment):
    """A segment with one vector a row; `codes` and `bits` are read through `check`."""

    def __init__(self, path: Path, info: SegmentInfo, storage: Storage, dimension: int) -> None:
        """Map the file and check everything in it but the codes.

        Raises:
            FileNotFoundError: it is gone (a reader that meets this takes a newer snapshot).
            IndexFileError: its size, header or checksum is not what the database says.
        """
        super().__init__(path, info)
        self.storage: Storage = storage
        self.dimension = dimension
        self._layout = layout = Layout(storage, dimension, info.rows)
        parts = layout.offsets()
        self._check_head(parts["codes"][0])
        self._take(
            self._part(parts["rows"], "<i8"),
            self._part(parts["keys"], "<u8"),
            self._part(parts["checksums"], "<u4"),
        )
        self.scales: FloatArray | None = self._part(parts["scales"], "<f4") if parts["scales"][1] else None
        self.codes: Codes = self._part(
            parts["codes"], np.dtype(CODE_TYPES[storage]).newbyteorder("<")
        ).reshape(-1, dimension)  # (N, E)
        self.bits: npt.NDArray[np.uint8] = self._part(parts["bits"], "u1").reshape(
            -1, max(1, layout.bit_bytes)
        )

    def check(self, start: int, stop: int, *, bits: bool = False) -> None:
        """Compare the checksums of the blocks that hold positions start to stop, each once.

        Raises:
            IndexFileError: a block holds other bytes than were written.
        """
        shift = self._layout.num_blocks if bits else 0
        self._check_blocks(shift + np.arange(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)))

    def check_positions(self, positions: RowArray) -> None:
        self._check_blocks(positions // BLOCK_ROWS)

    def _block(self, number: int) -> memoryview:
        blocks = self._layout.num_blocks
        values, number = (self.codes, number) if number < blocks else (self.bits, number - blocks)
        return values[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS].data

    def _named(self, number: int) -> str:
        first = number % self._layout.num_blocks * BLOCK_ROWS
        last = min(len(self), first + BLOCK_ROWS) - 1
        return f"rows {self.rows[first]} to {self.rows[last]}"

    def damaged_rows(self) -> RowArray:
        bad = np.zeros(len(self), bool)
        for bits in (False, True) if self._layout.bit_bytes else (False,):
            for block in range(self._layout.num_blocks):
                start, stop = block * BLOCK_ROWS, min(len(self), (block + 1) * BLOCK_ROWS)
                try:
                    self.check(start, stop, bits=bits)
                except IndexFileError:
                    bad[start:stop] = True
            self.release()
        return self.rows[bad]

    def stored(self, positions: RowArray) -> Sequence[bytes]:
        self.check_positions(positions)
        return [self.codes[positions].tobytes()]

    @property
    def meaning(self) -> bytes:
        return b"" if self.scales is None else self.scales.tobytes()

    def decode(self, start: int, stop: int) -> FloatArray:
        """Return the vectors at positions start to stop as (stop - start, E) float32; fp32 is not copied."""
        self.check(start, stop)
        return decode(self.codes[start:stop], self.scales)

    def gather(self, positions: RowArray) -> FloatArray:
        """Return the vectors at some positions as (len(positions), E) float32."""
        self.check_positions(positions)
        return decode(np.take(self.codes, positions, axis=0), self.scales)
