"""The ANN file that a snapshot names: proved to be what was written before faiss sees a byte of it."""

from __future__ import annotations

import mmap
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.errors import IndexFileError
from embedkit.native.search import num_threads
from embedkit.native.threads import on_threads

from ..storage.ann_info import CHUNK_BYTES, AnnInfo

if TYPE_CHECKING:
    from .ann import AnnIndex


class AnnFile:
    """An ANN file, mapped when first searched. An open file stays, even once it is replaced."""

    def __init__(self, folder: Path, info: AnnInfo) -> None:
        self.path, self.info = folder / info.name, info
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self._index: AnnIndex | None = None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def check(self) -> mmap.mmap:
        """Compare the file with what the database says of it: a damaged graph would lead faiss out of its memory.

        Raises:
            IndexFileError: the size or a checksum differs.
        """
        size = os.fstat(self._fd).st_size
        if size != self.info.num_bytes:
            raise self._damaged(f"{size:,} bytes; the database says {self.info.num_bytes:,}")
        # The descriptor, not the name: another process may have replaced the file since.
        data = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
        for number, (checksum, expected) in enumerate(zip(checksums(data), self.info.checksums, strict=True)):
            if checksum != expected:
                raise self._damaged(f"the checksum of its block {number} does not match: bytes were changed")
        return data

    def _damaged(self, what: str) -> IndexFileError:
        return IndexFileError(
            f"{self.path}: {what}. It can be made again: embedkit index repair {self.path.parent}"
        )

    def load(self) -> AnnIndex:
        if self._index is None:
            from .ann import AnnIndex

            self._index = AnnIndex.map(self.check(), self.info.kind)  # type: ignore[arg-type]  # it was written from a Kind
        return self._index


def checksums(data: mmap.mmap) -> list[int]:
    """Return the CRC-32 of each CHUNK_BYTES of a mapped file."""
    # It takes 10 ms to import: not where there is no structure.
    from concurrent.futures import ThreadPoolExecutor

    with memoryview(data) as view, ThreadPoolExecutor(num_threads(), "checksums") as pool:
        starts = range(0, len(view), CHUNK_BYTES)
        return list(on_threads(pool, lambda at: zlib.crc32(view[at : at + CHUNK_BYTES]), starts))
