"""How vectors are stored: as fp32, fp16, or codes of int8 with one step a dimension, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import Storage

STORAGES: tuple[Storage, ...] = ("float32", "float16", "int8", "binary")  # of one vector a passage
TOKEN_BITS: dict[Storage, int] = {"2-bit": 2, "4-bit": 4}  # a number of a token's vector
FloatArray = npt.NDArray[np.float32]
RowArray = npt.NDArray[np.int64]
Codes = npt.NDArray[Any]  # Any: float32, float16 or uint8, as the storage has it

CODE_TYPES: dict[Storage, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.uint8,
    "binary": np.uint8,
}


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
        codes: Codes = vectors.astype(CODE_TYPES[storage])
        return codes
    assert scales is not None
    return np.asarray(np.clip(np.rint(vectors / scales), -127, 127) + 128, np.uint8)


def decode(codes: Codes, scales: FloatArray | None) -> FloatArray:
    """Return codes as float32; what is float32 already is not copied."""
    if scales is not None:
        values: FloatArray = codes.astype(np.float32)
        values -= 128
        values *= scales
        return values
    return codes.astype(np.float32, copy=False)
