"""How many tokens texts will be, before a tokenizer has seen them, and where a request is cut into windows by that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedkit.encoding.windows import WINDOW_TEXTS
from embedkit.tokenization.tokenizer import refuse_no_text

# English has 4 to 5 bytes a token, Chinese 3 to 4 in UTF-8. The queue counts the real tokens as soon as there are any.
BYTES_PER_TOKEN = 3


class Span(NamedTuple):
    """Texts `start` to `stop` of a request, of about so many tokens."""

    start: int
    stop: int
    tokens: int


def text_bytes(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return the length of each text in UTF-8: (N,).

    Raises:
        TypeError: one is no string, or `texts` is one.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string; it must be a sequence of strings")
    for number, text in enumerate(texts):
        refuse_no_text(text, number)
    sizes = (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return np.fromiter(sizes, np.int64, len(texts))


def estimated_tokens(sizes: NDArray[np.int64], *, around: int, most: int | None) -> NDArray[np.int64]:
    """Estimate the tokens of texts from their bytes, with those `around` each of them; no text has more than `most`."""
    tokens = -(-sizes // BYTES_PER_TOKEN) + around
    return np.maximum(tokens if most is None else np.minimum(tokens, most), 1)


def cut_spans(tokens: NDArray[np.int64], most_tokens: int) -> list[Span]:
    """Cut texts, in order, into windows of at most `most_tokens` and WINDOW_TEXTS; a text that is longer stands alone."""
    ends = np.cumsum(tokens)
    spans = []
    start = done = 0
    while start < len(tokens):
        fitting = int(np.searchsorted(ends, done + most_tokens, side="right"))
        stop = min(max(start + 1, fitting), start + WINDOW_TEXTS)
        spans.append(Span(start, stop, int(ends[stop - 1]) - done))
        start, done = stop, int(ends[stop - 1])
    return spans
