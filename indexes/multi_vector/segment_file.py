"""The file of a segment of token vectors, immutable and checksummed by block; its layout and its writing.

Layout, little-endian, each part on a border of 64 bytes:
    header       the struct `HEADER`
    rows         N int64, ascending: the number that a passage's row keeps for life
    keys         N uint64: what ties a row to the text it was made from (see `hashes.passage_key`)
    starts       N + 1 int64: row i has the tokens from starts[i] to starts[i + 1]
    centroids    L uint16, ascending: those that any token here is told by
    list starts  L + 1 int64: the list of centroid i has the postings from there to the next
    checksums    one CRC-32 for each block of ID_ROWS rows of ids, of CODE_ROWS rows of codes, of LIST_POSTINGS postings
    ids          T uint16: the centroid of each token
    codes        (T, bytes a token) uint8: its gain and its numbers, packed (see `codebook`)
    postings     P uint32: the positions, here, of the rows that have a token of the list's centroid, ascending and each once
The database holds the CRC-32 of everything before the ids, and so, through the checksums, of all of the file. The lists repeat what
ids say, so that whatever rows a file holds, it also holds the way to them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..storage.codes import RowArray
from ..storage.new_file import unnamed_file
from ..storage.segment_file import SegmentInfo, filled_head, placed
from .codebook import Bytes, Codebook, Ids

MAGIC = b"EMBKMVS\x01"
HEADER = struct.Struct("<8sIIQQQQ")  # magic, bits, dimension, rows, tokens, lists, postings
ID_ROWS = 256  # 40 KB of ids for passages of 80 tokens: all candidates' are read
CODE_ROWS = 16  # 40 KB of codes: the best candidates' are read
LIST_POSTINGS = 16_384
_WRITTEN_ROWS = 1024  # whose codes are in memory together, a multiple of CODE_ROWS
Postings = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class TokenSegmentLayout:
    """Where each part of a segment stands, in bytes from the start of the file."""

    row_bytes: int  # of one token: its gain and its numbers
    rows: int
    tokens: int
    lists: int
    postings: int

    @property
    def blocks(self) -> tuple[int, int, int]:
        """How many blocks there are of ids, of codes and of postings."""
        return -(-self.rows // ID_ROWS), -(-self.rows // CODE_ROWS), -(-self.postings // LIST_POSTINGS)

    def offsets(self) -> dict[str, tuple[int, int]]:
        """Return the (offset, bytes) of each part, in file order."""
        sizes = {
            "header": HEADER.size,
            "rows": 8 * self.rows,
            "keys": 8 * self.rows,
            "starts": 8 * (self.rows + 1),
            "centroids": 2 * self.lists,
            "list starts": 8 * (self.lists + 1),
            "checksums": 4 * sum(self.blocks),
            "ids": 2 * self.tokens,
            "codes": self.row_bytes * self.tokens,
            "postings": 4 * self.postings,
        }
        return placed(sizes)


def make_lists(ids: Ids, counts: RowArray) -> tuple[Ids, RowArray, Postings]:
    """Return the centroids that occur, where the list of each starts (one more for the end), and the postings of all."""
    owners = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    pairs = np.unique(ids.astype(np.int64) << 32 | owners)
    of = (pairs >> 32).astype(np.uint16)
    firsts = np.flatnonzero(np.diff(of, prepend=of[0] ^ 1)) if len(of) else np.empty(0, np.int64)
    return of[firsts], np.append(firsts, len(pairs)), (pairs & 0xFFFFFFFF).astype(np.uint32)


def write_segment(
    path: Path,
    codebook: Codebook,
    ids: Ids,
    counts: RowArray,
    codes_of: Callable[[int, int], Bytes],
    rows: RowArray,
    keys: npt.NDArray[np.uint64],
) -> SegmentInfo:
    """Write tokens to a file that no transaction names yet.

    `ids` are those of all tokens, `counts` (N,) how many each row has; `codes_of(first, last)` returns the (T, bytes) of the rows from
    one to before another.
    """
    of, list_starts, postings = make_lists(ids, counts)
    layout = TokenSegmentLayout(codebook.row_bytes, len(rows), len(ids), len(of), len(postings))
    parts, starts = layout.offsets(), np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    id_bytes, posting_bytes = ids.astype("<u2"), postings.astype("<u4")
    sums = [zlib.crc32(id_bytes[first:last].data) for first, last in _borders(starts, ID_ROWS)]
    with unnamed_file(path) as file:
        file.seek(parts["ids"][0])
        file.write(id_bytes.data)
        file.seek(parts["codes"][0])
        for first in range(0, len(rows), _WRITTEN_ROWS):
            last = min(len(rows), first + _WRITTEN_ROWS)
            codes = codes_of(first, last)
            file.write(np.ascontiguousarray(codes).data)
            for at, end in _borders(starts[first : last + 1] - starts[first], CODE_ROWS):
                sums.append(zlib.crc32(codes[at:end].tobytes()))
        sums += [
            zlib.crc32(posting_bytes[first : first + LIST_POSTINGS].data)
            for first in range(0, len(postings), LIST_POSTINGS)
        ]
        file.seek(parts["postings"][0])
        file.write(posting_bytes.data)
        num_bytes = file.tell()
        if num_bytes != sum(parts["postings"]):
            raise ValueError(f"{path}: {num_bytes} bytes were written; {sum(parts['postings'])} were planned")
        values = {
            "header": HEADER.pack(
                MAGIC, codebook.bits, codebook.dimension, len(rows), len(ids), len(of), len(postings)
            ),
            "rows": rows.astype("<i8").tobytes(),
            "keys": keys.astype("<u8").tobytes(),
            "starts": starts.astype("<i8").tobytes(),
            "centroids": of.astype("<u2").tobytes(),
            "list starts": list_starts.astype("<i8").tobytes(),
            "checksums": np.asarray(sums, "<u4").tobytes(),
        }
        head = filled_head(parts, values)
        file.seek(0)
        file.write(head)
    return SegmentInfo(path.name, int(rows[0]), len(rows), num_bytes, zlib.crc32(head))


def _borders(starts: RowArray, rows: int) -> Iterator[tuple[int, int]]:
    """Yield the first token of each block of so many rows, and the one behind its last."""
    firsts = [*starts[:-1:rows].tolist(), int(starts[-1])]
    yield from pairwise(firsts)
