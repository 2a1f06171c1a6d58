"""Ready vectors: a `.npy` file of rows and a text file of their ids, as `embedkit encode` and `index export` write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedkit.errors import RecordError
from embedkit.types import Float32

# The header of a .npy file of float32 rows in a fixed size, so that the row count can be filled in at the end.
NPY_HEADER_BYTES = 128


def ids_path(output: Path) -> Path:
    """Return where the ids of a .npy file lie."""
    return output.with_suffix(".ids.txt")


def npy_header(rows: int, dimension: int) -> bytes:
    """Return the header of a .npy file of (rows, dimension) little-endian float32, padded to a fixed size."""
    fields = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}"
    text = fields.ljust(NPY_HEADER_BYTES - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("ascii")


def open_vectors(path: Path) -> Float32:
    """Map a `.npy` file of (N, E) float32, float16 or float64 into memory; other than float32 is read whole.

    Raises:
        RecordError: there is no such file, or it holds something else.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as exc:
        raise RecordError(f"{path}: there is no such file; check the path") from exc
    except (OSError, ValueError, EOFError) as exc:
        raise RecordError(f"{path}: cannot be read as .npy ({exc}). Make the file again") from exc
    if array.ndim != 2 or array.dtype.kind != "f":
        raise RecordError(
            f"{path}: an array of {array.ndim} dimensions of {array.dtype}; wanted rows of floating point, two dimensions"
        )
    return np.asarray(array, dtype=np.float32) if array.dtype != np.float32 else array


def read_ids(path: Path) -> list[str]:
    """Read ids, one per line.

    Raises:
        RecordError: the file is missing or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError as exc:
        raise RecordError(f"{path}: there is no such file; check the path") from exc
    except UnicodeDecodeError as exc:
        raise RecordError(f"{path}: byte {exc.start} is not UTF-8. Write the ids as UTF-8") from exc
