"""A stream of texts in windows: cut by count and characters, tokenized, each distinct text of a window once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedkit.encoding.text_counts import CountedWindow
from embedkit.errors import RecordError
from embedkit.retrieval.token_vectors import TokenVectors
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.blocks import BLOCK_CHARS
from embedkit.tokenization.tokenizer import Tokenizer, refuse_no_text
from embedkit.types import Float32, OnTruncate

# Texts sorted by length together. Larger windows have more neighbours of equal length; 4,096 gets nearly all of the
# gain (benchmarks/encode.py) in a few megabytes.
WINDOW_TEXTS = 4096
# A window of long documents ends earlier: at most this many characters (and one text more) wait in memory.
WINDOW_CHARS = 2**23


class TextRefusedError(RecordError):
    """A text cannot be encoded as it was asked for; `row` is its number within its window."""

    def __init__(self, message: str, row: int, option: str = "") -> None:
        super().__init__(message, option)
        self.row = row


@dataclass(frozen=True)
class Prompt:
    """What stands before each text, of how many tokens; pooling leaves out the first `skip` tokens of a sequence."""

    text: str
    num_tokens: int
    skip: int


@dataclass(frozen=True)
class TokenizedWindow:
    """A window's distinct texts as tokens; `rows` (N,) leads from each text to its distinct one.

    Shapes:
        owners: (C,) the distinct text of each sequence: several where one was cut into chunks
        truncated, empty, unknown: (N,) bool
    """

    batch: TokenBatch
    owners: NDArray[np.int64]
    rows: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    unknown: NDArray[np.bool_]

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first sequence of each distinct text: (B,)."""
        return np.flatnonzero(np.diff(self.owners, prepend=-1))

    @property
    def tokens(self) -> NDArray[np.int64]:
        """How many tokens are read of each text, special ones and prompts included: (N,)."""
        if not len(self.owners):
            return np.zeros(0, dtype=np.int64)
        counts: NDArray[np.int64] = np.add.reduceat(self.batch.lengths, self.starts)[self.rows]
        return counts


class AnyWindow(CountedWindow, Protocol):
    """What there is to say about N consecutive texts that were encoded; see `EncodedWindow`."""

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(N,) True where all values are finite."""
        ...


@dataclass(frozen=True)
class EncodedWindow:
    """The vectors of some consecutive texts, and what there is to say about them.

    `empty` texts hold white space at most, or only signs that the tokenizer drops. Where a model puts no tokens of its own around
    a text, as static ones do not, their vectors are zeros. `unknown` texts are made of nothing but what the vocabulary lacks, such as
    another script: however different, those of as many words get the same vector.

    Shapes:
        embeddings: (N, E) float32; truncated, empty, unknown: (N,) bool; num_tokens counts what the model has read
    """

    embeddings: Float32
    truncated: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    num_tokens: int

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(N,) True where all values of a text's vector are finite."""
        return np.asarray(np.isfinite(self.embeddings).all(axis=1))


@dataclass(frozen=True)
class TokenWindow:
    """The token vectors of some consecutive texts, and what there is to say about them.

    Shapes:
        vectors: of N texts; truncated, empty, unknown: (N,) bool, as in `EncodedWindow`; num_tokens counts what the model has read
    """

    vectors: TokenVectors
    truncated: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    num_tokens: int

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(N,) True where all values of a text's vectors are finite."""
        wrong = np.concatenate(([0], np.cumsum(~np.isfinite(self.vectors.vectors).all(axis=1))))
        found: NDArray[np.bool_] = np.diff(wrong[self.vectors.starts]) < 1
        return found


def cut_windows(texts: Iterator[str]) -> Iterator[list[str]]:
    """Yield the texts in windows: as many as one holds, by count and by characters.

    Raises:
        TypeError: one is no string.
    """
    window: list[str] = []
    chars = 0
    for number, text in enumerate(texts):
        refuse_no_text(text, number)
        window.append(text)
        chars += len(text)
        if len(window) == WINDOW_TEXTS or chars >= WINDOW_CHARS:
            yield window
            window, chars = [], 0
    if window:
        yield window


def tokenize_window(
    texts: Sequence[str], tokenizer: Tokenizer, *, prompt: str, prompt_tokens: int, on_truncate: OnTruncate
) -> TokenizedWindow:
    """Put the prompt before each distinct text and make tokens of it; each chunk repeats the prompt.

    Raises:
        TextRefusedError: a text is too long and `on_truncate` is "error".
    """
    number: dict[str, int] = {}  # equal texts are encoded once
    rows = np.array([number.setdefault(text, len(number)) for text in texts], dtype=np.int64)
    distinct = [prompt + text for text in number] if prompt else list(number)
    if on_truncate == "chunk":
        batch, owners = tokenizer.encode_chunks(distinct, repeat=prompt_tokens)
        truncated = np.zeros(len(distinct), dtype=np.bool_)
    else:
        batch = tokenizer.encode(distinct)
        owners = np.arange(len(distinct))
        truncated = batch.truncated
    if on_truncate == "error" and truncated.any():
        first = int(np.flatnonzero(truncated[rows])[0])
        assert batch.untruncated_lengths is not None
        # Of a longer text not all was tokenized.
        least = "at least " if len(distinct[rows[first]]) > BLOCK_CHARS else ""
        raise TextRefusedError(
            f"the text {texts[first][:60]!r} has {least}{batch.untruncated_lengths[rows[first]]:,} tokens; the model "
            f"reads {tokenizer.max_length:,}. Cut it",
            first,
            ", or pass --on-truncate chunk|warn|ok",
        )
    # No longer than the template and the prompt: perhaps there is nothing of the text itself.
    bare = batch.lengths[np.flatnonzero(np.diff(owners, prepend=-1))] <= (
        tokenizer.single.num_special + prompt_tokens
    )
    empty = np.array(
        [
            not text or text.isspace() or (is_bare and not _has_tokens(tokenizer, text))
            for text, is_bare in zip(number, bare.tolist(), strict=True)
        ],
        dtype=np.bool_,
    )
    unknown = _unknown(batch, owners, tokenizer, prompt_tokens)
    return TokenizedWindow(batch, owners, rows, truncated[rows], empty[rows], unknown[rows])


def _unknown(
    batch: TokenBatch, owners: NDArray[np.int64], tokenizer: Tokenizer, prompt_tokens: int
) -> NDArray[np.bool_]:
    """Say of each distinct text whether all of its own tokens are the unknown one: (B,) bool."""
    firsts = np.flatnonzero(np.diff(owners, prepend=-1))
    if tokenizer.unknown_id is None or not len(firsts):
        return np.zeros(len(firsts), dtype=np.bool_)
    before = np.concatenate(([0], np.cumsum(batch.input_ids == tokenizer.unknown_id)))
    stops = np.cumsum(batch.lengths)
    of_texts = np.add.reduceat(before[stops] - before[stops - batch.lengths], firsts)
    own = batch.lengths - tokenizer.single.num_special - prompt_tokens
    whole: NDArray[np.bool_] = (of_texts > 0) & (of_texts == np.add.reduceat(own, firsts))
    return whole


def _has_tokens(tokenizer: Tokenizer, text: str) -> bool:
    return int(tokenizer.encode([text]).lengths[0]) > tokenizer.single.num_special


def average_chunks(embeddings: Float32, window: TokenizedWindow) -> Float32:
    """Average the vectors of each text's chunks, weighted by their tokens: (C, E) -> (B, E)."""
    weights = window.batch.lengths.astype(np.float32)[:, None]
    summed = np.add.reduceat(embeddings * weights, window.starts, axis=0)
    totals = np.maximum(np.add.reduceat(weights, window.starts, axis=0), 1)
    averaged: Float32 = (summed / totals).astype(np.float32)
    return averaged
