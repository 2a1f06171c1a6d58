"""One immutable file of vectors: fp32, fp16, int8 or binary, memory-mapped and checksummed by block.

Layout, little-endian, each part on a border of 64 bytes:
    header     the struct `_HEADER`
    rows       N int64, ascending: the number that a row keeps for life
    keys       N uint64: what ties a vector to the text it was made from (see `database.passage_key`)
    scales     E float32, for int8 and binary alone: a vector is (code - 128) * scale
    checksums  one CRC-32 for each block of BLOCK_ROWS rows of codes, then for each block of bits
    codes      (N, E) float32, float16 or uint8
    bits       (N, ceil(E / 8)) uint8, for binary alone: the signs of the codes
The database holds the CRC-32 of everything before the codes, and so, through the table of checksums, of all of the file.
A block is checked when it is first read, so that opening a large index costs nothing and a damaged one is refused.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from embedkit.errors import IndexFileError

from ..types import Storage

STORAGES: tuple[Storage, ...] = get_args(Storage)
FloatArray = npt.NDArray[np.float32]
RowArray = npt.NDArray[np.int64]
Codes = npt.NDArray[Any]  # Any: float32, float16 or uint8, as the storage has it

SEGMENT_FOLDER = "segments"  # within an index
MAGIC = b"EMBKSEG\x01"
BLOCK_ROWS = 64  # 98 KB of fp32 in 384 dimensions: the CRC of a block costs a lone lookup 25 microseconds
_HEADER = struct.Struct("<8sIIQI")  # magic, storage, dimension, rows, rows in a block
_CODE_TYPES: dict[Storage, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.uint8,
    "binary": np.uint8,
}


@dataclass(frozen=True)
class _Layout:
    """Where each part of a segment stands, in bytes from the start of the file."""

    storage: Storage
    dimension: int
    rows: int

    @property
    def num_blocks(self) -> int:
        return -(-self.rows // BLOCK_ROWS)

    @property
    def row_bytes(self) -> int:
        return self.dimension * np.dtype(_CODE_TYPES[self.storage]).itemsize

    @property
    def bit_bytes(self) -> int:
        return -(-self.dimension // 8) if self.storage == "binary" else 0

    def offsets(self) -> dict[str, tuple[int, int]]:
        """Return the (offset, bytes) of each part, in file order."""
        scaled = self.storage in ("int8", "binary")
        tables = 2 if self.storage == "binary" else 1
        sizes = {
            "header": _HEADER.size,
            "rows": 8 * self.rows,
            "keys": 8 * self.rows,
            "scales": 4 * self.dimension if scaled else 0,
            "checksums": 4 * self.num_blocks * tables,
            "codes": self.rows * self.row_bytes,
            "bits": self.rows * self.bit_bytes,
        }
        parts, at = {}, 0
        for name, size in sizes.items():
            at = -(-at // 64) * 64
            parts[name] = (at, size)
            at += size
        return parts


@dataclass(frozen=True)
class SegmentInfo:
    """What the database knows of a segment file."""

    name: str
    first_row: int
    rows: int
    num_bytes: int
    checksum: int


def calibrate(vectors: FloatArray) -> FloatArray:
    """Choose the step of each dimension for int8 from a sample of the vectors.

    Few vectors say little of one dimension, so below 1,024 of them all dimensions share the widest step, with room
    to spare. What lies outside is clipped to the end of the scale.

    Shapes:
        vectors: (N, E)
        returns: (E,) so that a code is round(vector / step), between -127 and 127
    """
    widest = np.abs(vectors).max(axis=0)
    if len(vectors) < 1024:
        widest = np.full_like(widest, widest.max() * 1.5)
    else:
        # A dimension that happens to be 0 throughout the sample must still hold later values.
        widest = np.maximum(widest * 1.1, widest.max() * 0.02)
    return np.ascontiguousarray(np.maximum(widest, np.finfo(np.float32).tiny * 256) / 127, dtype=np.float32)


def encode(vectors: FloatArray, storage: Storage, scales: FloatArray | None) -> Codes:
    """Turn (N, E) float32 into codes of the storage's type."""
    if storage in ("float32", "float16"):
        codes: Codes = vectors.astype(_CODE_TYPES[storage])
        return codes
    assert scales is not None
    return np.asarray(np.clip(np.rint(vectors / scales), -127, 127) + 128, np.uint8)


def write_segment(
    path: Path,
    chunks: Iterable[Codes],
    *,
    storage: Storage,
    rows: RowArray,
    keys: npt.NDArray[np.uint64],
    dimension: int,
    scales: FloatArray | None,
) -> SegmentInfo:
    """Write codes, which come in chunks of any number of rows, to a new file and fsync it and its folder."""
    layout = _Layout(storage, dimension, len(rows))
    parts = layout.offsets()
    checksums: list[int] = []
    bits: list[npt.NDArray[np.uint8]] = []
    with path.open("xb") as file:
        file.seek(parts["codes"][0])
        for block in _blocks(chunks):
            data = block.tobytes()
            checksums.append(zlib.crc32(data))
            file.write(data)
            if storage == "binary":
                bits.append(np.packbits(block >= 128, axis=1))
        if bits:
            file.seek(parts["bits"][0])
            for bit_block in bits:
                checksums.append(zlib.crc32(bit_block.tobytes()))
                file.write(bit_block.tobytes())
        num_bytes = file.tell()
        expected = parts["bits"] if layout.bit_bytes else parts["codes"]
        if num_bytes != sum(expected):
            raise ValueError(f"{path}: {num_bytes} bytes of codes were given for {len(rows)} rows")
        head = _head(layout, rows, keys, scales, checksums)
        file.seek(0)
        file.write(head)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
    return SegmentInfo(path.name, int(rows[0]), len(rows), num_bytes, zlib.crc32(head))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _blocks(chunks: Iterable[Codes]) -> Iterator[Codes]:
    """Cut chunks of any length anew into blocks of BLOCK_ROWS; the last may be shorter."""
    rest: Codes | None = None
    for chunk in chunks:
        chunk = chunk if rest is None else np.concatenate([rest, chunk])
        whole = len(chunk) // BLOCK_ROWS * BLOCK_ROWS
        for start in range(0, whole, BLOCK_ROWS):
            yield chunk[start : start + BLOCK_ROWS]
        rest = chunk[whole:]
    if rest is not None and len(rest):
        yield rest


def _head(
    layout: _Layout,
    rows: RowArray,
    keys: npt.NDArray[np.uint64],
    scales: FloatArray | None,
    checksums: list[int],
) -> bytes:
    parts = layout.offsets()
    head = bytearray(parts["codes"][0])
    storage = STORAGES.index(layout.storage)
    header = _HEADER.pack(MAGIC, storage, layout.dimension, layout.rows, BLOCK_ROWS)
    values = {
        "header": header,
        "rows": rows.astype("<i8").tobytes(),
        "keys": keys.astype("<u8").tobytes(),
        "scales": b"" if scales is None else scales.astype("<f4").tobytes(),
        "checksums": np.asarray(checksums, "<u4").tobytes(),
    }
    for name, value in values.items():
        offset, size = parts[name]
        if len(value) != size:
            raise ValueError(f"the part {name} has {len(value)} bytes; {size} were planned")
        head[offset : offset + size] = value
    return bytes(head)


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
        self._layout = layout = _Layout(storage, dimension, info.rows)
        parts = layout.offsets()
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != info.num_bytes:
                raise IndexFileError(
                    f"{path}: {size:,} bytes; the database says {info.num_bytes:,}. "
                    f"The file was cut or replaced; run: embedkit index repair --index {path.parent.parent}"
                )
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if zlib.crc32(memoryview(self._map)[: parts["codes"][0]]) != info.checksum:
            raise IndexFileError(
                f"{path}: the header's checksum is not the database's: bytes were changed. "
                f"Run: embedkit index repair --index {path.parent.parent}"
            )
        self.rows: RowArray = self._part(parts["rows"], "<i8")
        self.keys: npt.NDArray[np.uint64] = self._part(parts["keys"], "<u8")
        self.scales: FloatArray | None = self._part(parts["scales"], "<f4") if parts["scales"][1] else None
        self._checksums: npt.NDArray[np.uint32] = self._part(parts["checksums"], "<u4")
        self.codes: Codes = self._part(
            parts["codes"], np.dtype(_CODE_TYPES[storage]).newbyteorder("<")
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
        for block in np.unique(blocks[~self._checked[shift + blocks]]).tolist():
            data = values[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]
            if zlib.crc32(data.data) != self._checksums[shift + block]:
                raise IndexFileError(
                    f"{self.path}: the checksum of rows {self.rows[block * BLOCK_ROWS]} to "
                    f"{self.rows[min(len(self), (block + 1) * BLOCK_ROWS) - 1]} does not match: bytes were changed. "
                    f"Run: embedkit index repair --index {self.path.parent.parent}"
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


def decode(codes: Codes, scales: FloatArray | None) -> FloatArray:
    """Return codes as float32; what is float32 already is not copied."""
    if scales is not None:
        values: FloatArray = codes.astype(np.float32)
        values -= 128
        values *= scales
        return values
    return codes.astype(np.float32, copy=False)
