"""What an index's segments hold of each passage, by the kind of the index; here: one vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from embedkit.retrieval.vectors import directed

from .codes import Codes, FloatArray, RowArray, calibrate, encode
from .database import Database
from .segment import MappedSegment, Segment
from .segment_file import SegmentInfo, write_segment
from .settings import Settings
from .vectors import prepare_vectors

_CHUNK_ROWS = 8192
Keys = npt.NDArray[np.uint64]
Meta = Mapping[str, bytes]  # values of the database that a commit stores together with its segment


class Payload(Protocol):
    """How vectors of one kind go into segments and come out of them. Any: vectors as `embedkit.retrieval.vectors` has them."""

    def prepare(self, vectors: Any, names: Sequence[str]) -> Any:
        """Check the vectors of N texts and bring them to the form that is compared. `names` says what each is in a message.

        Raises:
            IndexMismatchError: they do not fit the index.
        """
        ...

    def compress(self, vectors: Any) -> Any:
        """Return prepared vectors so that they take little memory until they are written, where that can be."""
        ...

    def has_direction(self, vectors: Any) -> npt.NDArray[np.bool_]:
        """Say of N texts which have something that the index can take."""
        ...

    def open(self, path: Path, info: SegmentInfo) -> MappedSegment:
        """Map a segment; raises as `Segment`."""
        ...

    def write(self, path: Path, parts: Sequence[Any], rows: RowArray, keys: Keys) -> tuple[SegmentInfo, Meta]:
        """Write prepared vectors, in any number of parts, to a file that no transaction names yet."""
        ...

    def write_kept(
        self, path: Path, parts: Sequence[tuple[MappedSegment, RowArray]], rows: RowArray, keys: Keys
    ) -> SegmentInfo:
        """Write what segments hold at some positions of each to such a file, just as it is stored."""
        ...


class DensePayload:
    """One vector a passage."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database

    def prepare(self, vectors: FloatArray, names: Sequence[str]) -> FloatArray:
        return prepare_vectors(vectors, self._settings, names)

    def compress(self, vectors: FloatArray) -> FloatArray:
        return vectors

    def has_direction(self, vectors: FloatArray) -> npt.NDArray[np.bool_]:
        """For cosine those that are not all zeros, as of a text without tokens."""
        return directed(vectors) if self._settings.metric == "cosine" else np.ones(len(vectors), np.bool_)

    def open(self, path: Path, info: SegmentInfo) -> Segment:
        return Segment(path, info, self._settings.storage, self._settings.dimension)

    def write(
        self, path: Path, parts: Sequence[FloatArray], rows: RowArray, keys: Keys
    ) -> tuple[SegmentInfo, Meta]:
        scales, meta = self._scales(parts), {}
        if scales is not None and self._database.meta("scales") is None:
            meta["scales"] = scales.astype("<f4").tobytes()
        info = write_segment(
            path,
            (encode(part, self._settings.storage, scales) for part in parts),
            storage=self._settings.storage,
            rows=rows,
            keys=keys,
            dimension=self._settings.dimension,
            scales=scales,
        )
        return info, meta

    def _scales(self, parts: Sequence[FloatArray]) -> FloatArray | None:
        """Return the steps of int8, chosen when the first vectors come."""
        if self._settings.storage not in ("int8", "binary"):
            return None
        stored = self._database.meta("scales")
        return calibrate(np.concatenate(parts)) if stored is None else np.frombuffer(stored, "<f4")

    def write_kept(
        self, path: Path, parts: Sequence[tuple[MappedSegment, RowArray]], rows: RowArray, keys: Keys
    ) -> SegmentInfo:
        dense = cast("Sequence[tuple[Segment, RowArray]]", parts)
        first = dense[0][0]
        return write_segment(
            path,
            _codes(dense),
            storage=first.storage,
            rows=rows,
            keys=keys,
            dimension=first.dimension,
            scales=first.scales,
        )


def _codes(parts: Sequence[tuple[Segment, RowArray]]) -> Iterator[Codes]:
    for segment, positions in parts:
        for start in range(0, len(positions), _CHUNK_ROWS):
            chunk = positions[start : start + _CHUNK_ROWS]
            segment.check_positions(chunk)
            yield segment.codes[chunk]
            segment.release()
