"""Sparse vectors on their way into segments: checked, brought to 8 bits, written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from embedkit.errors import IndexMismatchError
from embedkit.retrieval.sparse_vectors import SparseVectors

from ..storage.codes import RowArray
from ..storage.payload import Keys, Meta
from ..storage.segment import MappedSegment
from ..storage.segment_file import SegmentInfo
from ..storage.settings import Settings
from .lists import BLOCK_ROWS
from .rows import SparseRows
from .segment import SparseSegment
from .segment_file import write_segment

Weights = SparseVectors | SparseRows


class SparsePayload:
    """One sparse vector a passage, its weights in 8 bits."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prepare(self, vectors: SparseVectors, names: Sequence[str]) -> SparseVectors:
        """Check the sparse vectors of texts and, for cosine, bring each to unit length.

        Raises:
            IndexMismatchError: vectors of another kind, number or dimension, or a weight that is not finite and above 0.
        """
        if not isinstance(vectors, SparseVectors):
            what = (  # type: ignore[unreachable]  # whoever has no types may give anything
                f"an array of shape {vectors.shape}"
                if isinstance(vectors, np.ndarray)
                else type(vectors).__name__
            )
            raise IndexMismatchError(
                f"{what} was given; this index holds weights of terms. Use the learned sparse model that the index was built with"
            )
        if len(vectors) != len(names) or vectors.dimension != self._settings.dimension:
            raise IndexMismatchError(
                f"{len(vectors)} sparse vectors of {vectors.dimension} dimensions were given; {len(names)} texts in an index of "
                f"dimension {self._settings.dimension} are wanted. Use the model that the index was built with"
            )
        owners = np.repeat(np.arange(len(vectors)), vectors.counts)
        sound = np.isfinite(vectors.weights) & (vectors.weights > 0)
        if not sound.all():
            at = int(np.argmin(sound))
            raise IndexMismatchError(
                f"term {int(vectors.terms[at])} of {names[int(owners[at])]} weighs {vectors.weights[at]}; an index takes finite "
                "weights above 0. Check the model that made it"
            )
        if self._settings.metric != "cosine":
            return vectors
        squares = np.bincount(owners, vectors.weights.astype(np.float64) ** 2, minlength=len(vectors))
        weights = vectors.weights / np.sqrt(squares)[owners]
        return SparseVectors(vectors.starts, vectors.terms, weights.astype(np.float32), vectors.dimension)

    def compress(self, vectors: SparseVectors) -> SparseRows:
        """Return prepared vectors as they are stored."""
        return SparseRows.of(vectors)

    def has_direction(self, vectors: Weights) -> npt.NDArray[np.bool_]:
        """Say which texts have any terms; of vectors of another kind `prepare` says what is wrong."""
        if isinstance(vectors, SparseVectors | SparseRows):
            return vectors.directed
        return np.ones(len(vectors), np.bool_)  # type: ignore[unreachable]  # as above

    def open(self, path: Path, info: SegmentInfo) -> SparseSegment:
        return SparseSegment(path, info, self._settings.dimension)

    def write(
        self, path: Path, parts: Sequence[Weights], rows: RowArray, keys: Keys
    ) -> tuple[SegmentInfo, Meta]:
        coded = SparseRows.concatenate(
            [part if isinstance(part, SparseRows) else SparseRows.of(part) for part in parts]
        )

        def blocks() -> Iterator[SparseRows]:
            for first in range(0, len(coded), BLOCK_ROWS):
                yield coded.take(np.arange(first, min(len(coded), first + BLOCK_ROWS)))

        return self._write(path, blocks(), coded.counts, rows, keys), {}

    def write_kept(
        self, path: Path, parts: Sequence[tuple[MappedSegment, RowArray]], rows: RowArray, keys: Keys
    ) -> SegmentInfo:
        kept = [(cast("SparseSegment", segment), positions) for segment, positions in parts]
        counts = np.concatenate([segment.counts(positions) for segment, positions in kept])
        borders = np.cumsum([0, *(len(positions) for _, positions in kept)]).tolist()

        def blocks() -> Iterator[SparseRows]:
            for first in range(0, len(rows), BLOCK_ROWS):
                found = []
                for (segment, positions), start in zip(kept, borders, strict=False):
                    here = positions[max(0, first - start) : max(0, first + BLOCK_ROWS - start)]
                    if len(here):
                        found.append(segment.encoded(here))
                        segment.release()
                yield SparseRows.concatenate(found)

        return self._write(path, blocks(), counts, rows, keys)

    def _write(
        self, path: Path, blocks: Iterator[SparseRows], counts: RowArray, rows: RowArray, keys: Keys
    ) -> SegmentInfo:
        return write_segment(
            path, blocks, dimension=self._settings.dimension, counts=counts, rows=rows, keys=keys
        )
