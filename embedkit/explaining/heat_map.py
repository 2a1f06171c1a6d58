"""A matrix as a small grey image inside a page: one pixel a number."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from embedkit.types import Float32


def png_of(matrix: Float32, *, highest: float) -> bytes:
    """Draw (R, C) numbers from 0 (white) to `highest` (black) as a PNG of R × C pixels.

    Source: PNG, third edition, https://www.w3.org/TR/png-3/: one grey byte a pixel, rows with filter 0.
    """
    rows, columns = matrix.shape
    grey = 255 - np.clip(np.nan_to_num(matrix) / max(highest, 1e-12), 0, 1) * 255
    pixels = np.zeros((rows, columns + 1), np.uint8)  # the first byte of a row is its filter
    pixels[:, 1:] = np.rint(grey)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def data_uri(png: bytes) -> str:
    """Return an image as what `src` takes."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
