"""Reading Zstandard files."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

import zstandard


def open_reader(stream: BinaryIO) -> BinaryIO:
    """Open a compressed stream for reading, across all of its frames."""
    raw = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True, closefd=False)
    return cast("BinaryIO", io.BufferedReader(raw, 2**20))
