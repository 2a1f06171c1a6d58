"""Ids of many texts, one after the other, cut and put between special tokens without a loop over texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


def cut(
    ids: Int32, counts: Int64, room: int, *, side: Literal["right", "left"], dropped: int | None
) -> tuple[Int32, Int64]:
    """Keep of each text `room` tokens, those that are not on the `side` that is cut, and then no `dropped` ones: what is left, and how many.

    Shapes:
        ids: (N,) of B texts; counts: (B,)
    """
    if dropped is None and (not len(counts) or counts.max() <= room):
        return ids, counts
    starts = np.cumsum(counts) - counts
    place = np.arange(len(ids)) - np.repeat(starts, counts)
    kept = place < room if side == "right" else place >= np.repeat(counts - room, counts)
    if dropped is not None:
        kept &= ids != dropped
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    return ids[kept], before[starts + counts] - before[starts]


def frame(ids: Int32, counts: Int64, prefix: Sequence[int], suffix: Sequence[int]) -> tuple[Int64, Int64]:
    """Put special tokens around each text: all ids, and how many each text has now."""
    lengths = counts + (len(prefix) + len(suffix))
    starts = np.cumsum(lengths) - lengths
    framed = np.empty(int(lengths.sum()), np.int64)
    own = np.ones(len(framed), np.bool_)
    for places, special in ((starts, prefix), (starts + len(prefix) + counts, suffix)):
        for number, token in enumerate(special):
            framed[places + number] = token
            own[places + number] = False
    framed[own] = ids
    return framed, lengths
