"""Snippets: the part of a passage that holds most of a query's words, and where they stand in it."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from ..storage.schema import FORMAT_VERSION
from ..storage.words import TOKENIZER, placed_terms
from .text import find_terms

# Where words are parted by spaces sentences are too; after 。 and । there may be none.
_SENTENCE_END = re.compile(r"(?<=[.!?…؟۔])[\"'”’»)\]]*\s+|(?<=[。！？｡।॥။។])[\"'”’」』）)\]]*\s*|\n+")


@dataclass(frozen=True)
class Snippet:
    """A part of a passage; `spans` are the (start, stop) of the matching words in `text`, in characters."""

    text: str
    spans: Sequence[tuple[int, int]]


def mark_words(query: str, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Return the spans of each text that the query matches, ascending, stemmed just as the index stems."""
    terms = find_terms(query, FORMAT_VERSION)
    if not terms:
        return [[] for _ in texts]
    placed = [list(placed_terms(text)) for text in texts]
    there = sorted({term for places in placed for term, _, _ in places})
    with closing(sqlite3.connect(":memory:")) as connection:
        # A pair of neighbours is matched by a pair alone, not by one of the two.
        connection.execute(f'CREATE VIRTUAL TABLE there USING fts5(word, pair, tokenize="{TOKENIZER}")')
        rows = ((number, *(("", term) if " " in term else (term, ""))) for number, term in enumerate(there))
        connection.executemany("INSERT INTO there (rowid, word, pair) VALUES (?, ?, ?)", rows)
        wanted = " OR ".join(f'{"pair" if " " in term else "word"} : "{term}"' for term in terms)
        found = connection.execute("SELECT rowid FROM there WHERE there MATCH ?", (wanted,))
        matching = {there[number] for (number,) in found}
    return [_joined((start, stop) for term, start, stop in places if term in matching) for places in placed]


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans that overlap, as pairs of characters do."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined


def snippets(query: str, texts: Sequence[str], *, max_chars: int = 240) -> list[Snippet]:
    """Cut each text down to the sentence, with its neighbours while there is room, that holds most of the query's words.

    Where nothing matches, as a dense search may have it, the text's beginning stands for it.
    """
    return [
        _snippet(text, spans, max_chars) for text, spans in zip(texts, mark_words(query, texts), strict=True)
    ]


def _snippet(text: str, spans: Sequence[tuple[int, int]], max_chars: int) -> Snippet:
    borders = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    sentences = [(start, stop) for start, stop in itertools.pairwise(borders) if stop > start]
    if not sentences:
        return Snippet("", ())

    def value(sentence: tuple[int, int]) -> int:
        return len({text[a:b].lower() for a, b in spans if sentence[0] <= a and b <= sentence[1]})

    best = max(range(len(sentences)), key=lambda number: (value(sentences[number]), -number))
    start, stop = sentences[best]
    last = best
    while last + 1 < len(sentences) and sentences[last + 1][1] - start <= max_chars:
        last += 1
        stop = sentences[last][1]
    while best > 0 and stop - sentences[best - 1][0] <= max_chars:
        best -= 1
        start = sentences[best][0]
    if stop - start > max_chars:  # one long sentence: begin a little before its first match
        inside = [a for a, b in spans if start <= a and b <= stop]
        if inside and inside[0] - start > max_chars // 2:
            start = text.find(" ", inside[0] - max_chars // 4, inside[0]) + 1 or inside[0]
        stop = min(stop, start + max_chars)
    while stop > start and text[stop - 1].isspace():
        stop -= 1
    kept = [(a - start, b - start) for a, b in spans if start <= a and b <= stop]
    return Snippet(text[start:stop], tuple(kept))
