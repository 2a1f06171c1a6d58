"""Choose the tokens that the smallest model keeps; a word that is left out falls apart into those."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

PREFIX = "##"
LATIN = 0x250  # single characters below it stay where the texts use them, so that known words stay known

Ints = NDArray[np.int64]


def commonest(counts: Ints, special: Ints, size: int) -> Ints:
    """Return the tokens that are used most, the special ones first of all: (V,) counts -> (size,) numbers, ascending."""
    return _best(_scores(counts, special), size)


def keep_tokens(counts: Ints, vocabulary: Mapping[str, int], special: Ints, size: int) -> Ints:
    """Return the commonest tokens and every single Latin character: (size,) numbers, ascending."""
    scores = _scores(counts, special)
    for token, number in vocabulary.items():
        if len(token.removeprefix(PREFIX)) == 1 and ord(token[-1]) < LATIN:
            scores[number] += 1e9
    return _best(scores, size)


def _scores(counts: Ints, special: Ints) -> NDArray[np.float64]:
    scores = counts.astype(np.float64)
    scores[special] = 1e18
    return scores


def _best(scores: NDArray[np.float64], size: int) -> Ints:
    return np.sort(np.argsort(-scores, kind="stable")[:size])


def first_pieces(kept: Ints, vocabulary: Mapping[str, int], unknown: int) -> Ints:
    """Say which kept row stands for each token in training: its own, or that of its longest beginning: (V,) -> rows of `kept`.

    So token ids need not be computed again: where a tokenizer with the kept tokens gives several pieces, training sees the first.
    """
    rows = {int(number): row for row, number in enumerate(kept)}
    found = np.full(len(vocabulary), rows[unknown], np.int64)
    for token, number in vocabulary.items():
        prefix = PREFIX if token.startswith(PREFIX) else ""
        for end in range(len(token), len(prefix), -1):
            row = rows.get(vocabulary.get(token[:end], -1))
            if row is not None:
                found[number] = row
                break
    return found
