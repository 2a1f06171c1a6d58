"""The file of a segment: vectors as fp32, fp16, int8 or binary, immutable, checksummed by block; its layout and its writing.

Layout, little-endian, each part on a border of 64 bytes:
    header     the struct `_HEADER`
    rows       N int64, ascending: the number that a row keeps for life
    keys       N uint64: what ties a vector to the text it was made from (see `hashes.passage_key`)
    scales     E float32, for int8 and binary alone: a vector is (code - 128) * scale
    checksums  one CRC-32 for each block of BLOCK_ROWS rows of codes, then for each block of bits
    codes      (N, E) float32, float16 or uint8
    bits       (N, ceil(E / 8)) uint8, for binary alone: the signs of the codes
The database holds the CRC-32 of everything before the codes, and so, through the table of checksums, of all of the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..types import Storage
from .codes import CODE_TYPES, STORAGES, Codes, FloatArray, RowArray
from .new_file import unnamed_file

MAGIC = b"EMBKSEG\x01"
BLOCK_ROWS = 64  # 98 KB of fp32 in 384 dimensions: the CRC of a block costs a lone lookup 25 microseconds
_HEADER = struct.Struct("<8sIIQI")  # magic, storage, dimension, rows, rows in a block


@dataclass(frozen=True)
class SegmentInfo:
    """What the database knows of a segment file."""

    name: str
    first_row: int
    rows: int
    num_bytes: int
    checksum: int


@dataclass(frozen=True)
class Layout:
    """Where each part of a segment stands, in bytes from the start of the file."""

    storage: Storage
    dimension: int
    rows: int

    @property
    def num_blocks(self) -> int:
        return -(-self.rows // BLOCK_ROWS)

    @property
    def row_bytes(self) -> int:
        return self.dimension * np.dtype(CODE_TYPES[self.storage]).itemsize

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
        return placed(sizes)


def placed(sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return where each part of a file begins, at a multiple of 64 bytes, and its size; they follow one another in this order."""
    parts, at = {}, 0
    for name, size in sizes.items():
        at = -(-at // 64) * 64
        parts[name] = (at, size)
        at += size
    return parts


def filled_head(parts: Mapping[str, tuple[int, int]], values: Mapping[str, bytes]) -> bytes:
    """Put the first parts of a file in their places; they end where the first part without a value begins.

    Raises:
        ValueError: a value is not as long as its part.
    """
    head = bytearray(next(offset for name, (offset, _) in parts.items() if name not in values))
    for name, value in values.items():
        offset, size = parts[name]
        if len(value) != size:
            raise ValueError(f"the part {name} has {len(value)} bytes; {size} were planned")
        head[offset : offset + size] = value
    return bytes(head)


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
    """Write codes, which come in chunks of any number of rows, to a file that no transaction names yet."""
    layout = Layout(storage, dimension, len(rows))
    parts = layout.offsets()
    checksums: list[int] = []
    bits: list[npt.NDArray[np.uint8]] = []
    with unnamed_file(path) as file:
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
    return SegmentInfo(path.name, int(rows[0]), len(rows), num_bytes, zlib.crc32(head))


def _blocks(chunks: Iterable[Codes]) -> Iterator[Codes]:
    """Cut chunks of any length again into blocks of BLOCK_ROWS; the last may be shorter."""
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
    layout: Layout,
    rows: RowArray,
    keys: npt.NDArray[np.uint64],
    scales: FloatArray | None,
    checksums: list[int],
) -> bytes:
    storage = STORAGES.index(layout.storage)
    header = _HEADER.pack(MAGIC, storage, layout.dimension, layout.rows, BLOCK_ROWS)
    values = {
        "header": header,
        "rows": rows.astype("<i8").tobytes(),
        "keys": keys.astype("<u8").tobytes(),
        "scales": b"" if scales is None else scales.astype("<f4").tobytes(),
        "checksums": np.asarray(checksums, "<u4").tobytes(),
    }
    return filled_head(layout.offsets(), values)
