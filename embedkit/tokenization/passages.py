"""Cutting a long text into passages of so many tokens, at the ends of sentences where it can."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Span = tuple[int, int]  # start and stop in characters
Offsets = Callable[[str], Sequence[Span]]  # the tokens of a text, without special ones

# A sentence ends with its mark and what closes a quotation; a line's end is one too, for lists and headings.
_SENTENCE_END = re.compile(r"(?:[.!?…][\"'”’)\]]*\s+|[。！？]\s*|\n\s*)")


@dataclass(frozen=True, kw_only=True)
class PassageSplitter:
    """Cuts texts into passages of at most `chunk_tokens` tokens, each sharing up to `chunk_overlap` with the one before.

    The title is embedded with every passage, so its tokens count; a long title leaves the text a quarter of the room at
    least. Special tokens do not count: leave room for them below the encoder's maximum length.
    """

    offsets: Offsets
    chunk_tokens: int = 256
    chunk_overlap: int = 32

    def __post_init__(self) -> None:
        if self.chunk_tokens < 8:
            raise ValueError(f"chunk_tokens is {self.chunk_tokens}; a passage needs at least 8")
        if not 0 <= self.chunk_overlap <= self.chunk_tokens // 2:
            raise ValueError(
                f"chunk_overlap is {self.chunk_overlap}; it must be between 0 and half of chunk_tokens, "
                f"{self.chunk_tokens // 2}"
            )

    def __call__(self, title: str, text: str) -> list[Span]:
        """Return the passages of a text in order, as characters; [] for a text without tokens."""
        tokens = [(start, stop) for start, stop in self.offsets(text) if stop > start]
        room = self.chunk_tokens
        if title and len(tokens) > self.chunk_tokens // 4:  # a short text fits, whatever the title
            room = max(room - len(self.offsets(title)), room // 4, 1)
        if not tokens:
            return []
        if len(tokens) <= room:
            return [(tokens[0][0], tokens[-1][1])]
        return _cut(text, tokens, room, min(self.chunk_overlap, room // 2))


def _cut(text: str, tokens: Sequence[Span], room: int, overlap: int) -> list[Span]:
    starts = [start for start, _ in tokens]
    # Numbers of the tokens that begin a sentence, and of those that begin a word.
    sentences = sorted(
        {bisect_left(starts, match.end()) for match in _SENTENCE_END.finditer(text)} - {0, len(tokens)}
    )
    words = [number for number in range(1, len(tokens)) if starts[number] > tokens[number - 1][1]]
    passages = []
    first = 0
    while True:
        stop = first + room
        if stop >= len(tokens):
            passages.append((tokens[first][0], tokens[-1][1]))
            return passages
        # A passage of less than half the room is not worth a whole sentence at its end.
        stop = _last(sentences, first + room // 2, stop) or _last(words, first + room // 2, stop) or stop
        passages.append((tokens[first][0], tokens[stop - 1][1]))
        earliest = max(first + 1, stop - overlap)
        first = _first(sentences, earliest, stop) or _first(words, earliest, stop) or earliest


def _last(borders: Sequence[int], above: int, upto: int) -> int | None:
    """Return the last border b with above < b <= upto."""
    at = bisect_right(borders, upto) - 1
    return borders[at] if at >= 0 and borders[at] > above else None


def _first(borders: Sequence[int], start: int, upto: int) -> int | None:
    """Return the first border b with start <= b <= upto."""
    at = bisect_left(borders, start)
    return borders[at] if at < len(borders) and borders[at] <= upto else None
