"""Cutting a long text into passages of so many tokens, at the ends of sentences where it can."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from embedkit.data.records import titled_text

Span = tuple[int, int]  # start and stop in characters
Offsets = Callable[[str], Sequence[Span]]  # the tokens of a text, without special ones

# A sentence ends with its mark and what closes a quotation; a line's end is one too, for lists and headings.
_SENTENCE_END = re.compile(r"(?:[.!?…][\"'”’)\]]*\s+|[。！？]\s*|\n\s*)")
_SPACE = re.compile(r"\s")


@dataclass(frozen=True, kw_only=True)
class PassageSplitter:
    """Cuts texts into passages of at most `chunk_tokens` tokens, each sharing up to `chunk_overlap` with the one before.

    The title is embedded with every passage, so its tokens count; a long title leaves the text a quarter of the room at
    least. Special tokens do not count: leave room for them below the encoder's maximum length. What counts are the tokens
    of a passage by itself, under its title, as it is encoded: half a word may have more of them than it had in its text.
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
        found = self.offsets(text)
        # Without white space, which some tokenizers count as part of the word after it.
        tokens = [
            (stop - len(text[start:stop].lstrip()), stop)
            for start, stop in found
            if not text[start:stop].isspace() and stop > start
        ]
        if not tokens:
            return []
        most = len(title.encode()) + len(_first_word(text, tokens[0][0]).encode()) if title else 0
        if len(found) + most <= self.chunk_tokens:  # most texts: their title need not be tokenized
            return [(tokens[0][0], tokens[-1][1])]
        of_title = len(self.offsets(title)) if title else 0
        room = max(self.chunk_tokens - of_title, self.chunk_tokens // 4, 1)
        return _Cut(
            text, tokens, title, of_title, room=room, exact=len(tokens) < len(found), offsets=self.offsets
        ).passages(min(self.chunk_overlap, room // 2))


@dataclass
class _Cut:
    """The cutting of one text."""

    text: str
    tokens: Sequence[Span]
    title: str
    of_title: int  # tokens
    room: int  # tokens of the text in one passage
    exact: bool  # every passage must be measured: some tokens of the text are not in `tokens`
    offsets: Offsets
    # Numbers of the tokens that begin a sentence, and of those that begin a word.
    sentences: list[int] = field(init=False)
    words: list[int] = field(init=False)

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.tokens]
        ends = _SENTENCE_END.finditer(self.text)
        self.sentences = sorted({bisect_left(starts, match.end()) for match in ends} - {0, len(starts)})
        self.words = [
            number for number in range(1, len(starts)) if starts[number] > self.tokens[number - 1][1]
        ]

    def passages(self, overlap: int) -> list[Span]:
        passages = []
        first = 0
        while True:
            stop = self._stop(first)
            passages.append(self._span(first, stop))
            if stop == len(self.tokens):
                return passages
            earliest = max(first + 1, stop - overlap)
            first = _first(self.sentences, earliest, stop) or _first(self.words, earliest, stop) or earliest

    def _stop(self, first: int) -> int:
        """Return the token before which a passage ends: the best border from which it still fits."""
        room = self.room
        while True:
            stop = self._border(first, room)
            excess = self._excess(first, stop)
            if excess <= 0 or stop == first + 1:
                return stop
            room = max(1, stop - first - excess)

    def _border(self, first: int, room: int) -> int:
        stop = first + room
        if stop >= len(self.tokens):
            return len(self.tokens)
        # A passage of less than half the room is not worth a whole sentence at its end.
        least = first + room // 2
        return _last(self.sentences, least, stop) or _last(self.words, least, stop) or stop

    def _excess(self, first: int, stop: int) -> int:
        """Say by how many tokens a passage under its title is too long; 0 or less where it fits."""
        start, end = self._span(first, stop)
        limit = self.of_title + self.room
        # Whole words have the tokens that they had in the text, but for the first one, which may have had a space before
        # it: byte-level BPE knows "Ġword" and "word" apart. In bytes it has as many tokens as it can have.
        if not self.exact and self._between_words(start) and self._between_words(end):
            most = self.of_title + stop - first + len(_first_word(self.text, start).encode())
            if most <= limit:
                return most - limit
        return len(self.offsets(titled_text(self.title, self.text[start:end]))) - limit

    def _span(self, first: int, stop: int) -> Span:
        return self.tokens[first][0], self.tokens[stop - 1][1]

    def _between_words(self, at: int) -> bool:
        around = self.text[max(at - 1, 0) : at + 1]
        return at in (0, len(self.text)) or any(character.isspace() for character in around)


def _first_word(text: str, start: int) -> str:
    """Return what stands between `start` and the next white space: "two" of ("one two three", 4)."""
    space = _SPACE.search(text, start)
    return text[start : space.start() if space else len(text)]


def _last(borders: Sequence[int], above: int, upto: int) -> int | None:
    """Return the last border b with above < b <= upto."""
    at = bisect_right(borders, upto) - 1
    return borders[at] if at >= 0 and borders[at] > above else None


def _first(borders: Sequence[int], start: int, upto: int) -> int | None:
    """Return the first border b with start <= b <= upto."""
    at = bisect_left(borders, start)
    return borders[at] if at < len(borders) and borders[at] <= upto else None
