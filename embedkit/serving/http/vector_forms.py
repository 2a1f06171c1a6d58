"""The forms in which clients ask for vectors: numbers, base64, bytes and bits."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.types import Float32

VectorForm = Literal["float", "base64", "int8", "uint8", "binary", "ubinary"]
# Of unit vectors, whose components deviate by 1/sqrt(E) from 0: beyond so many deviations bytes are clipped.
BYTE_DEVIATIONS = 8.0


def written(
    vectors: Float32, form: VectorForm
) -> Sequence[Any] | NDArray[Any]:  # Any: of each form's own type
    """Write vectors, (N, E), in a form: a row, or a string, for each.

    - base64: float32, little-endian.
    - int8: each component of the unit vector times 127·sqrt(E)/8, rounded and clipped; the same for all texts, so that
      vectors of different requests compare. uint8: 128 more.
    - ubinary: a bit a component, 1 where it is above 0, the first of eight the highest of its byte: (N, ceil(E/8)); binary: each byte
      less 128, as Cohere has it.
    """
    match form:
        case "float":
            return vectors
        case "base64":
            return [base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in vectors]
        case "int8":
            return _bytes(vectors)
        case "uint8":
            return (_bytes(vectors).astype(np.int16) + 128).astype(np.uint8)
        case "ubinary":
            return np.packbits(vectors > 0, axis=1)
        case "binary":
            return (np.packbits(vectors > 0, axis=1).astype(np.int16) - 128).astype(np.int8)


def _bytes(vectors: Float32) -> NDArray[np.int8]:
    scale = 127 * np.sqrt(vectors.shape[1]) / BYTE_DEVIATIONS
    scaled: NDArray[np.int8] = np.clip(np.rint(normalize(vectors) * scale), -127, 127).astype(np.int8)
    return scaled
