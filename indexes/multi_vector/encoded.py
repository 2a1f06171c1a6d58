"""Token vectors as they are stored: the centroid and the bytes of each token, of some texts one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.retrieval.token_vectors import spans

from .codebook import Bytes, Ids


@dataclass(frozen=True)
class EncodedTokens:
    """The tokens of N texts.

    Shapes:
        ids: (T,) uint16, the centroid of each token; codes: (T, bytes a token) uint8; counts: (N,) int64, how many are each text's
    """

    ids: Ids
    codes: Bytes
    counts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def directed(self) -> npt.NDArray[np.bool_]:
        """(N,): which texts have any tokens."""
        return self.counts > 0

    def take(self, rows: npt.NDArray[np.int64]) -> EncodedTokens:
        """Return the tokens of some texts, by position."""
        counts = self.counts[rows]
        at = spans((np.cumsum(self.counts) - self.counts)[rows], counts)
        return EncodedTokens(self.ids[at], self.codes[at], counts)

    @classmethod
    def concatenate(cls, parts: Sequence[EncodedTokens]) -> EncodedTokens:
        """Put the texts of several into one; at least one must be given."""
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.codes for part in parts]),
            np.concatenate([part.counts for part in parts]),
        )
