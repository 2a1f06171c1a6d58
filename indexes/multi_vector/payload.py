"""Token vectors on their way into segments: checked, told by the codebook, written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from embedkit.errors import IndexMismatchError
from embedkit.retrieval.token_vectors import TokenVectors
from embedkit.retrieval.vectors import Vectors

from ..storage.codes import TOKEN_BITS, RowArray
from ..storage.database import Database
from ..storage.payload import Keys, Meta
from ..storage.segment import MappedSegment
from ..storage.segment_file import SegmentInfo
from ..storage.settings import CODEBOOK, Settings
from .codebook import Bytes, Codebook
from .encoded import EncodedTokens
from .segment import TokenSegment
from .segment_file import write_segment
from .training import train

Tokens = TokenVectors | EncodedTokens


class MultiVectorPayload:
    """One vector a token. The first commit makes the codebook, which stays as it is for the life of the index."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._committed: Codebook | None = None

    @property
    def codebook(self) -> Codebook | None:
        """What tells the vectors; None before the first commit.

        Raises:
            IndexFileError: it is damaged.
        """
        if self._committed is None:
            stored = self._database.meta(CODEBOOK)
            if stored is not None:
                self._committed = Codebook.from_bytes(bytes(stored), str(self._database.path))
        return self._committed

    def prepare(self, vectors: Vectors, names: Sequence[str]) -> TokenVectors:
        """Check the token vectors of texts and bring each to unit length.

        Raises:
            IndexMismatchError: vectors of another kind, number or dimension, or such as have no direction.
        """
        if not isinstance(vectors, TokenVectors):
            what = (
                f"an array of shape {vectors.shape}"
                if isinstance(vectors, np.ndarray)
                else type(vectors).__name__
            )
            raise IndexMismatchError(
                f"{what} was given; this index holds a vector for each token. "
                "Use the multi-vector model that the index was built with"
            )
        dimension = vectors.vectors.shape[1]
        if len(vectors) != len(names) or dimension != self._settings.dimension:
            raise IndexMismatchError(
                f"the token vectors of {len(vectors)} texts in {dimension} dimensions were given; {len(names)} texts in an "
                f"index of dimension {self._settings.dimension} are wanted. Use the model that the index was built with"
            )
        values = np.ascontiguousarray(vectors.vectors, dtype=np.float32)
        norms = np.sqrt(np.einsum("td,td->t", values, values, dtype=np.float64))
        sound = np.isfinite(norms) & (norms > 0)
        if not sound.all():
            at = int(np.argmin(sound))
            text = int(np.searchsorted(vectors.starts, at, side="right")) - 1
            what = "is all zeros" if norms[at] == 0 else "holds NaN or infinity"
            raise IndexMismatchError(
                f"the vector of token {at - int(vectors.starts[text]) + 1} of {names[text]} {what}; "
                "an index takes finite vectors that have a direction. Check the model that made it"
            )
        return TokenVectors((values / norms[:, None]).astype(np.float32), vectors.counts)

    def compress(self, vectors: TokenVectors) -> Tokens:
        """Return prepared vectors as they are stored, once a segment with its codebook is there.

        What another thread has not committed yet does not count: it may never be.
        """
        return vectors if self._committed is None else _told(vectors, self._committed)

    def has_direction(self, vectors: Vectors) -> npt.NDArray[np.bool_]:
        """Say which texts have any tokens; of vectors of another kind `prepare` says what is wrong."""
        if isinstance(vectors, TokenVectors | EncodedTokens):
            return vectors.directed
        return np.ones(len(vectors), np.bool_)

    def open(self, path: Path, info: SegmentInfo) -> TokenSegment:
        return TokenSegment(path, info, self._need_codebook())

    def _need_codebook(self) -> Codebook:
        if self.codebook is None:
            raise IndexMismatchError(
                f"{self._database.path}: there are token vectors, but no codebook that tells them. Build the index again"
            )
        return self.codebook

    def write(
        self, path: Path, parts: Sequence[Tokens], rows: RowArray, keys: Keys
    ) -> tuple[SegmentInfo, Meta]:
        codebook, meta = self.codebook, {}
        if codebook is None:
            given = TokenVectors.concatenate(cast("Sequence[TokenVectors]", parts))  # told by nothing yet
            codebook = train(given.vectors, TOKEN_BITS[self._settings.storage])
            meta[CODEBOOK] = codebook.to_bytes()
        tokens = EncodedTokens.concatenate(
            [part if isinstance(part, EncodedTokens) else _told(part, codebook) for part in parts]
        )
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(tokens.counts)])

        def codes_of(first: int, last: int) -> Bytes:
            return tokens.codes[starts[first] : starts[last]]

        info = write_segment(path, codebook, tokens.ids, tokens.counts, codes_of, rows, keys)
        return info, meta

    def write_kept(
        self, path: Path, parts: Sequence[tuple[MappedSegment, RowArray]], rows: RowArray, keys: Keys
    ) -> SegmentInfo:
        kept = [(cast("TokenSegment", segment), positions) for segment, positions in parts]
        of_parts = [segment.gather_ids(positions) for segment, positions in kept]
        counts = [segment.counts(positions) for segment, positions in kept]
        borders = np.cumsum([0, *(len(positions) for _, positions in kept)])

        def codes_of(first: int, last: int) -> Bytes:
            found = []
            for (segment, positions), start in zip(kept, borders.tolist(), strict=False):
                here = positions[max(0, first - start) : max(0, last - start)]
                if len(here):
                    found.append(segment.encoded(here).codes)
                    segment.release()
            return np.concatenate(found)

        return write_segment(
            path,
            self._need_codebook(),
            np.concatenate(of_parts),
            np.concatenate(counts),
            codes_of,
            rows,
            keys,
        )


def _told(vectors: TokenVectors, codebook: Codebook) -> EncodedTokens:
    return EncodedTokens(*codebook.encode(vectors.vectors), vectors.counts)
