"""Token batches: the ids of several sequences, packed one after another without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenBatch:
    """B sequences of N tokens in all.

    Shapes:
        input_ids: (N,) int64, sequence after sequence
        lengths: (B,) int64, special tokens included
        token_type_ids: (N,) int64, or None where all are 0
        untruncated_lengths: (B,) int64; larger than `lengths` where a sequence was cut, if only by what is known of it
        num_keys: (B,) int64, how many of a sequence's first tokens are attended to, or None where all are; the others attend to these
    """

    input_ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None = None
    untruncated_lengths: NDArray[np.int64] | None = None
    num_keys: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if int(self.lengths.sum()) != len(self.input_ids):
            raise ValueError(
                f"lengths add up to {self.lengths.sum()}; input_ids has {len(self.input_ids)} tokens"
            )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """(B,) True where a sequence was cut."""
        if self.untruncated_lengths is None:
            return np.zeros(len(self), dtype=np.bool_)
        return self.untruncated_lengths > self.lengths

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> TokenBatch:
        """Return some of the sequences, in the order of `rows`."""
        order = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[order]
        starts = (np.cumsum(self.lengths) - self.lengths)[order]
        offsets = np.cumsum(lengths) - lengths
        # Token j of the result is token j - offset + start of its sequence.
        index = np.arange(int(lengths.sum())) + np.repeat(starts - offsets, lengths)
        return TokenBatch(
            self.input_ids[index],
            lengths,
            None if self.token_type_ids is None else self.token_type_ids[index],
            None if self.untruncated_lengths is None else self.untruncated_lengths[order],
            None if self.num_keys is None else self.num_keys[order],
        )

    @classmethod
    def joined(cls, batches: Sequence[TokenBatch]) -> TokenBatch:
        """Return the sequences of one batch after those of another; all have token types, and numbers of keys, or none has.

        `untruncated_lengths` are left out.
        """
        if len(batches) == 1:
            return batches[0]
        types = [batch.token_type_ids for batch in batches if batch.token_type_ids is not None]
        keys = [batch.num_keys for batch in batches if batch.num_keys is not None]
        return cls(
            np.concatenate([batch.input_ids for batch in batches]),
            np.concatenate([batch.lengths for batch in batches]),
            np.concatenate(types) if types else None,
            num_keys=np.concatenate(keys) if keys else None,
        )

    def padded(self, pad_token_id: int) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Return input_ids, attention_mask and token_type_ids, each (B, T) with T the longest length."""
        width = int(self.lengths.max()) if len(self) else 0
        mask = np.arange(width) < self.lengths[:, None]  # (B, T)
        ids = np.full(mask.shape, pad_token_id, dtype=np.int64)
        ids[mask] = self.input_ids
        types = np.zeros(mask.shape, dtype=np.int64)
        if self.token_type_ids is not None:
            types[mask] = self.token_type_ids
        return ids, mask, types
