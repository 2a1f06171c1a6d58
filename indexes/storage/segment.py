"""A segment as it is read: mapped into memory, each block of it checked when it is first read.

So opening a large index costs nothing, and a damaged one is refused.
"""

from __future__ import annotations

import mmap
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.errors import IndexFileError

from ..types import Storage
from .codes import CODE_TYPES, Codes, FloatArray, RowArray, decode
from .segment_file import BLOCK_ROWS, Layout, SegmentInfo


class Segment:
    """A segment file, mapped into memory. Its rows ascend; `codes` and `bits` are read through `check`."""

    def __init__(self, path: Path, info: SegmentInfo, storage: Storage, dimension: int) -> None:
        """Map the file and check everything in it but the codes.

        Raises:
            FileNotFoundError: it is gone (a reader that meets this takes a newer snapshot).
            IndexFileError: its size, header or checksum is not what the database says.
        """
        self.path, self.info = path, info
        self.storage: Storage = storage
        self.dimension = dimension
        self._layout = layout = Layout(storage, dimension, info.rows)
        parts = layout.offsets()
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != info.num_bytes:
                raise IndexFileError(
                    f"{path}: {size:,} bytes; the database says {info.num_bytes:,}. "
                    f"The file was cut or replaced; run: embedkit index repair {path.parent.parent}"
                )
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if zlib.crc32(memoryview(self._map)[: parts["codes"][0]]) != info.checksum:
            raise IndexFileError(
                f"{path}: the header's checksum is not the database's: bytes were changed. "
                f"Run: embedkit index repair {path.parent.parent}"
            )
        self.rows: RowArray = self._part(parts["rows"], "<i8")
        self.keys: npt.NDArray[np.uint64] = self._part(parts["keys"], "<u8")
        self.scales: FloatArray | None = self._part(parts["scales"], "<f4") if parts["scales"][1] else None
        self._checksums: npt.NDArray[np.uint32] = self._part(parts["checksums"], "<u4")
        self.codes: Codes = self._part(
            parts["codes"], np.dtype(CODE_TYPES[storage]).newbyteorder("<")
        ).reshape(-1, dimension)  # (N, E)
        self.bits: npt.NDArray[np.uint8] = self._part(parts["bits"], "u1").reshape(
            -1, max(1, layout.bit_bytes)
        )
        # Until a compaction leaves some out, a segment's rows are consecutive: no search for each is needed.
        self._consecutive = int(self.rows[-1]) - info.first_row == len(self.rows) - 1
        self._checked = np.zeros(len(self._checksums), bool)
        self._unchecked = len(self._checked)

    def _part(self, part: tuple[int, int], dtype: Any) -> Codes:  # Any: what np.dtype takes
        offset, size = part
        kind = np.dtype(dtype)
        if not size:
            return np.empty(0, kind)
        return np.frombuffer(self._map, kind, count=size // kind.itemsize, offset=offset)

    def __len__(self) -> int:
        return self.info.rows

    def check(self, start: int, stop: int, *, bits: bool = False) -> None:
        """Compare the checksums of the blocks that hold positions start to stop, each once.

        Raises:
            IndexFileError: a block holds other bytes than were written.
        """
        self._check_blocks(np.arange(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)), bits)

    def check_positions(self, positions: RowArray) -> None:
        """Compare the checksums of the blocks that hold some positions, as `check` does."""
        self._check_blocks(positions // BLOCK_ROWS, False)

    def _check_blocks(self, blocks: RowArray, bits: bool) -> None:
        if not self._unchecked:
            return
        shift = self._layout.num_blocks if bits else 0
        values = self.bits if bits else self.codes
        for block in sorted(set(blocks[~self._checked[shift + blocks]].tolist())):
            data = values[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]
            if zlib.crc32(data.data) != self._checksums[shift + block]:
                raise IndexFileError(
                    f"{self.path}: the checksum of rows {self.rows[block * BLOCK_ROWS]} to "
                    f"{self.rows[min(len(self), (block + 1) * BLOCK_ROWS) - 1]} does not match: bytes were changed. "
                    f"Run: embedkit index repair {self.path.parent.parent}"
                )
            self._checked[shift + block] = True
        # Counted, not counted down: several threads may have checked the same block.
        self._unchecked = len(self._checked) - int(np.count_nonzero(self._checked))

    def damaged_rows(self) -> RowArray:
        """Return the rows whose codes or bits do not match their checksums."""
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

    def decode(self, start: int, stop: int) -> FloatArray:
        """Return the vectors at positions start to stop as (stop - start, E) float32; fp32 is not copied."""
        self.check(start, stop)
        return decode(self.codes[start:stop], self.scales)

    def positions(self, rows: RowArray) -> RowArray:
        """Return where rows stand, or would stand; the caller looks whether they do."""
        if self._consecutive:
            return np.clip(rows - self.info.first_row, 0, len(self) - 1)
        return np.minimum(np.searchsorted(self.rows, rows), len(self) - 1).astype(np.int64, copy=False)

    def gather(self, positions: RowArray) -> FloatArray:
        """Return the vectors at some positions as (len(positions), E) float32."""
        self.check_positions(positions)
        return decode(np.take(self.codes, positions, axis=0), self.scales)

    def release(self) -> None:
        """Give the pages of the file back to the system: a pass over a large index need not stay in memory."""
        if hasattr(self._map, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
