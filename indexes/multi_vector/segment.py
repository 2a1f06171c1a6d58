"""A segment of token vectors as it is read: mapped into memory, each block of it checked when it is first read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.errors import IndexFileError
from embedkit.retrieval.token_vectors import TokenVectors, spans

from ..storage.codes import RowArray
from ..storage.segment import MappedSegment
from ..storage.segment_file import SegmentInfo
from .codebook import Bytes, Codebook, Ids
from .encoded import EncodedTokens
from .segment_file import CODE_ROWS, HEADER, ID_ROWS, LIST_POSTINGS, Postings, TokenSegmentLayout


class TokenSegment(MappedSegment):
    """A segment whose row i has the tokens from starts[i] to starts[i + 1] of `ids` and `codes`, which are read through checks."""

    def __init__(self, path: Path, info: SegmentInfo, codebook: Codebook) -> None:
        """Map the file and check everything in it before the ids.

        Raises:
            FileNotFoundError: it is gone (a reader that meets this takes a newer snapshot).
            IndexFileError: its size, header or checksum is not what the database says.
        """
        super().__init__(path, info)
        self.codebook = codebook
        if info.num_bytes < HEADER.size:
            self._check_head(info.num_bytes)
        _, _, _, _, tokens, lists, postings = HEADER.unpack(memoryview(self._map)[: HEADER.size])
        self._layout = layout = TokenSegmentLayout(codebook.row_bytes, info.rows, tokens, lists, postings)
        parts = layout.offsets()
        self._check_head(parts["ids"][0])
        self._take(
            self._part(parts["rows"], "<i8"),
            self._part(parts["keys"], "<u8"),
            self._part(parts["checksums"], "<u4"),
        )
        self.starts: RowArray = self._part(parts["starts"], "<i8")
        self._centroids: Ids = self._part(parts["centroids"], "<u2")
        self._list_starts: RowArray = self._part(parts["list starts"], "<i8")
        self.ids: Ids = self._part(parts["ids"], "<u2")
        self.codes: Bytes = self._part(parts["codes"], "u1").reshape(-1, codebook.row_bytes)
        self._postings: Postings = self._part(parts["postings"], "<u4")

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    def counts(self, positions: RowArray) -> RowArray:
        """Return how many tokens the rows at some positions have."""
        return self.starts[positions + 1] - self.starts[positions]

    def candidates(self, centroids: npt.NDArray[np.int64]) -> RowArray:
        """Return the positions of the rows that have a token of any of some centroids, which ascend; themselves ascending."""
        at = np.flatnonzero(np.isin(self._centroids, centroids))
        if not len(at):
            return np.empty(0, np.int64)
        firsts, lasts = self._list_starts[at], self._list_starts[at + 1]
        blocks = [
            np.arange(first // LIST_POSTINGS, -(-last // LIST_POSTINGS))
            for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
        ]
        self._check_blocks(sum(self._layout.blocks[:2]) + np.concatenate(blocks))
        found = np.zeros(len(self), bool)
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            found[self._postings[first:last]] = True
        return np.flatnonzero(found)

    def check_ids(self, positions: RowArray) -> None:
        """Compare the checksums of the ids of rows."""
        self._check_blocks(positions // ID_ROWS)

    def check_positions(self, positions: RowArray) -> None:
        self.check_ids(positions)
        self._check_blocks(self._layout.blocks[0] + positions // CODE_ROWS)

    def _block(self, number: int) -> memoryview:
        of_ids, of_codes, _ = self._layout.blocks
        if number >= of_ids + of_codes:
            at = (number - of_ids - of_codes) * LIST_POSTINGS
            return self._postings[at : at + LIST_POSTINGS].data
        rows, values = (ID_ROWS, self.ids) if number < of_ids else (CODE_ROWS, self.codes)
        first = (number if number < of_ids else number - of_ids) * rows
        last = min(len(self), first + rows)
        return values[self.starts[first] : self.starts[last]].data

    def _named(self, number: int) -> str:
        of_ids, of_codes, _ = self._layout.blocks
        if number >= of_ids + of_codes:
            return "the lists of its rows by centroid"
        rows = ID_ROWS if number < of_ids else CODE_ROWS
        first = (number if number < of_ids else number - of_ids) * rows
        return f"rows {self.rows[first]} to {self.rows[min(len(self), first + rows) - 1]}"

    def damaged_rows(self) -> RowArray:
        bad = np.zeros(len(self), bool)
        of_ids, of_codes, _ = self._layout.blocks
        for number in range(of_ids + of_codes):
            rows = ID_ROWS if number < of_ids else CODE_ROWS
            first = (number if number < of_ids else number - of_ids) * rows
            try:
                self._check_blocks(np.array([number]))
            except IndexFileError:
                bad[first : first + rows] = True
        self.release()
        return self.rows[bad]

    def damage_of_lists(self) -> str | None:
        try:
            self._check_blocks(sum(self._layout.blocks[:2]) + np.arange(self._layout.blocks[2]))
        except IndexFileError:
            return "the lists of its rows by centroid do not match their checksums"
        return None

    def encoded(self, positions: RowArray) -> EncodedTokens:
        """Return the tokens of the rows at some positions as they are stored."""
        self.check_positions(positions)
        counts = self.counts(positions)
        at = spans(self.starts[positions], counts)
        return EncodedTokens(self.ids[at], self.codes[at], counts)

    def gather_ids(self, positions: RowArray) -> Ids:
        """Return the centroids of the tokens of the rows at some positions."""
        self.check_ids(positions)
        return self.ids[spans(self.starts[positions], self.counts(positions))]

    def gather(self, positions: RowArray) -> TokenVectors:
        """Return the token vectors of the rows at some positions."""
        found = self.encoded(positions)
        return TokenVectors(self.codebook.decode(found.ids, found.codes), found.counts)

    def stored(self, positions: RowArray) -> Sequence[bytes]:
        found = self.encoded(positions)
        return [part.tobytes() for part in (found.counts, found.ids, found.codes)]

    @property
    def meaning(self) -> bytes:
        return self.codebook.to_bytes()
