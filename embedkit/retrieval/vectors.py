"""What a model makes of texts, of whichever kind: one row of numbers a text, or something that is no such array."""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from embedkit.types import Float32


@runtime_checkable
class TextVectors(Sized, Protocol):
    """The vectors of N texts that are not one row of numbers each, such as `TokenVectors`."""

    @property
    def directed(self) -> npt.NDArray[np.bool_]:
        """(N,): which texts have any."""
        ...

    def take(self, rows: npt.NDArray[np.int64]) -> TextVectors:
        """Return those of some texts, by position, in the order given."""
        ...


Vectors = Float32 | TextVectors
_Some = TypeVar("_Some", bound=Vectors)


def directed(vectors: Vectors) -> npt.NDArray[np.bool_]:
    """Say which of N texts have a direction: not a vector of zeros, as of a text without tokens."""
    return np.asarray(vectors.any(axis=1)) if isinstance(vectors, np.ndarray) else vectors.directed


def take(vectors: _Some, positions: npt.NDArray[np.int64]) -> _Some:
    """Return the vectors of some texts, by position."""
    found = vectors[positions] if isinstance(vectors, np.ndarray) else vectors.take(positions)
    return cast("_Some", found)
