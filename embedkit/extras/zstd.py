"""Reading Zstandard files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Compressed bytes taken at a time: small, since a few of them may unfold into very many.
CHUNK_BYTES = 2**13


def open_reader(stream: BinaryIO) -> BinaryIO:
    """Open a compressed stream for reading, across all of its frames.

    Raises (while reading):
        EOFError: the last frame is cut short, which zstandard's own reader passes over in silence.
        OSError: the data are damaged or not Zstandard.
    """
    return cast("BinaryIO", io.BufferedReader(_Frames(stream), 2**17))


class _Frames(io.RawIOBase):
    """The decompressed bytes of frames that follow one another."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: WriteableBuffer) -> int:
        while not self._ready:
            data = self._compressed or self._stream.read(CHUNK_BYTES)
            if not data:
                if self._frame is not None:
                    raise EOFError("the Zstandard data end in the middle of a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                self._ready = memoryview(self._frame.decompress(data))
            except zstandard.ZstdError as exc:
                raise OSError(f"not Zstandard: {exc}") from exc
            self._compressed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        room = memoryview(target).cast("B")
        size = min(len(room), len(self._ready))
        room[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size
