"""Matrices stored as 8-bit integers with scales of rows and columns: a quarter of the room of fp32. No torch here.

In a safetensors file, the int8 matrix NAME (R, C) has two fp32 vectors beside it: NAME.row_scale (R,) and NAME.column_scale (C,).
weight[r, c] = NAME[r, c] * row_scale[r] * column_scale[c], which loading computes in fp32. config.json names the format, so that
loaders that do not know it refuse the folder.

Source: columns of like size before rows are rounded, as in Xiao et al. 2023, https://arxiv.org/abs/2211.10438, eq. 4, by the weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.hub_weights import Stored
from embedkit.errors import CheckpointError

Float32 = NDArray[np.float32]
ROW_SCALE, COLUMN_SCALE = ".row_scale", ".column_scale"
QUANTIZATION = {"quant_method": "embedkit_int8"}  # `quantization_config` of config.json
FEWEST = 2**12  # numbers of a matrix that is worth it: two vectors of scales come with it
_LARGEST = 127
_CLIPS = np.linspace(
    1.0, 0.7, 13, dtype=np.float32
)  # shares of a row's largest number that 127 may stand for


@dataclass(frozen=True)
class Scales:
    """Shapes: row (R,) and column (C,), fp32, above 0."""

    row: Float32
    column: Float32

    def apply(self, codes: NDArray[Any], rows: NDArray[np.int64] | None = None) -> Float32:
        """Return the numbers that codes (R, C) stand for, or some rows of them."""
        result = (codes if rows is None else codes[rows]).astype(np.float32)
        result *= (self.row if rows is None else self.row[rows])[:, None]
        result *= self.column
        return result


_Stored = TypeVar("_Stored", bound=Stored)


def take_scales(stored: dict[str, _Stored], where: Path) -> dict[str, tuple[_Stored, _Stored]]:
    """Take the scales out of what was read: those of rows and of columns, by the name of their matrix.

    Raises:
        CheckpointError: a matrix or one of its scales is missing, or the shapes do not fit together.
    """
    names = {
        name.removesuffix(end) for end in (ROW_SCALE, COLUMN_SCALE) for name in stored if name.endswith(end)
    }
    found = {}
    for name in sorted(names):
        codes, row, column = (stored.get(name + end) for end in ("", ROW_SCALE, COLUMN_SCALE))
        shapes = [None if part is None else tuple(part.shape) for part in (codes, row, column)]
        if codes is None or row is None or column is None or tuple(codes.shape) != row.shape + column.shape:
            raise CheckpointError(
                f"{where}: the 8-bit matrix {name!r} and its scales of rows and columns have shapes "
                f"{', '.join(map(str, shapes))}, which do not fit together. Copy the weights again"
            )
        found[name] = (row, column)
        del stored[name + ROW_SCALE], stored[name + COLUMN_SCALE]
    return found


def quantize(weight: Float32) -> tuple[NDArray[np.int8], Scales]:
    """Round a matrix (R, C) of finite numbers, with the scales that lose least: in each row the best of a few."""
    column_scale = np.sqrt(np.abs(weight).max(axis=0, initial=0.0))
    column_scale[column_scale == 0] = 1
    level = weight / column_scale
    largest = np.abs(level).max(axis=1, initial=0.0)
    largest[largest == 0] = 1
    best, least = np.empty_like(largest), np.full(len(largest), np.inf, np.float32)
    for clip in _CLIPS:
        scale = largest * clip / _LARGEST
        lost = np.square((_round(level, scale) * scale[:, None] - level) * column_scale).sum(axis=1)
        better = lost < least
        best[better], least[better] = scale[better], lost[better]
    return _round(level, best).astype(np.int8), Scales(best, column_scale)


def _round(level: Float32, scale: Float32) -> Float32:
    rounded: Float32 = np.clip(np.rint(level / scale[:, None]), -_LARGEST, _LARGEST)
    return rounded
