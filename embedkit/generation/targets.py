"""What a decoder is shown and what it must say: each token is predicted from those before it (teacher forcing).

    text      a    cat  .
    shown     [CLS] a   cat  .
    said      a    cat  .    [SEP]

Source: Williams and Zipser 1989, https://doi.org/10.1162/neco.1989.1.2.270.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedkit.tokenization.tokenizer import Tokenizer

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """N tokens of B sequences, one after another: shown to the decoder, and said by it.

    Shapes:
        shown, said: (N,); lengths: (B,); truncated: (B,) bool, which do not end where their text does
    """

    shown: Ints
    said: Ints
    lengths: Ints
    truncated: NDArray[np.bool_]

    @classmethod
    def of(cls, sequences: Sequence[tuple[list[int], list[int]]], truncated: Sequence[bool]) -> Targets:
        """Join sequences of what is shown and what is said."""
        return cls(
            np.array([token for shown, _ in sequences for token in shown], dtype=np.int64),
            np.array([token for _, said in sequences for token in said], dtype=np.int64),
            np.array([len(said) for _, said in sequences], dtype=np.int64),
            np.array(truncated, dtype=np.bool_),
        )


def make_targets(tokenizer: Tokenizer, texts: Sequence[str], *, max_tokens: int) -> Targets:
    """Turn texts into targets of at most `max_tokens`; one that is cut does not say the end, which it does not reach."""
    start, end = tokenizer.special_id("cls"), tokenizer.special_id("sep")
    sequences, truncated = [], []
    for ids in tokenizer.ids(texts):
        said = [*ids, end][:max_tokens]
        sequences.append(([start, *said[:-1]], said))
        truncated.append(len(ids) + 1 > max_tokens)
    return Targets.of(sequences, truncated)


def make_windows(tokenizer: Tokenizer, texts: Sequence[str], *, max_tokens: int) -> Targets:
    """Cut texts into as many sequences as they need, for a language model; no token is said twice and none left out.

    A later sequence is shown the last token of the one before it, and nothing else of it.
    """
    start, end = tokenizer.special_id("cls"), tokenizer.special_id("sep")
    sequences = []
    for ids in tokenizer.ids(texts):
        whole = [start, *ids, end]
        for first in range(0, len(whole) - 1, max_tokens):
            piece = whole[first : first + max_tokens + 1]
            sequences.append((piece[:-1], piece[1:]))
    return Targets.of(sequences, [False] * len(sequences))
