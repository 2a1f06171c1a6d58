"""Pairs of texts on their way to a cross-encoder: put into windows, and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.tokenizer import Tokenizer, Truncation

# Pairs sorted by length together: enough for batches of nearly equal lengths, few enough to answer soon.
WINDOW_PAIRS = 1024


@dataclass(frozen=True)
class PairCounts:
    """What a cross-encoder has scored so far; `truncated` pairs lost tokens, in `cut_queries` of them the query did."""

    pairs: int = 0
    tokens: int = 0
    truncated: int = 0
    cut_queries: int = 0

    def __add__(self, other: PairCounts) -> PairCounts:
        return PairCounts(
            self.pairs + other.pairs,
            self.tokens + other.tokens,
            self.truncated + other.truncated,
            self.cut_queries + other.cut_queries,
        )


@dataclass(frozen=True)
class PairWindow:
    """Pairs that are tokenized and sorted together: query i with text i. `sizes` are those of the groups in it."""

    queries: Sequence[str]
    texts: Sequence[str]
    sizes: Sequence[int]


def windows_of_groups(groups: Iterable[tuple[str, Sequence[str]]]) -> Iterator[PairWindow]:
    """Put whole groups, each a query with its texts, into windows of WINDOW_PAIRS pairs or a little more."""
    queries: list[str] = []
    texts: list[str] = []
    sizes: list[int] = []
    for query, own in groups:
        queries += [query] * len(own)
        texts += own
        sizes.append(len(own))
        if len(texts) >= WINDOW_PAIRS:
            yield PairWindow(queries, texts, sizes)
            queries, texts, sizes = [], [], []
    if sizes:
        yield PairWindow(queries, texts, sizes)


def windows_of_pairs(queries: Sequence[str], texts: Sequence[str]) -> Iterator[PairWindow]:
    """Cut N pairs into windows of WINDOW_PAIRS, the last one shorter."""
    for start in range(0, len(texts), WINDOW_PAIRS):
        window = slice(start, start + WINDOW_PAIRS)
        yield PairWindow(queries[window], texts[window], (len(texts[window]),))


def count_cut_queries(
    batch: TokenBatch, queries: Sequence[str], tokenizer: Tokenizer, truncation: Truncation
) -> int:
    """Count the pairs of a batch in which the query lost a token."""
    rows = np.flatnonzero(batch.truncated).tolist()
    if not rows or batch.untruncated_lengths is None:
        return 0
    room = tokenizer.max_length - tokenizer.pair.num_special
    distinct = list(dict.fromkeys(queries[row] for row in rows))
    known = tokenizer.ids_to_cut(distinct, room + 1)
    sizes = {query: len(ids) for query, (ids, _) in zip(distinct, known, strict=True)}
    cut = 0
    for row in rows:
        left = sizes[queries[row]]
        # The one keeps a token for the text, the other halves the room between two long texts.
        cut += left >= room if truncation == "second" else left > room // 2
    return int(cut)
