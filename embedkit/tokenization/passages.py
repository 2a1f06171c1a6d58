"""Cutting a long text into passages of so many tokens, at the ends of sentences where it can.

No passage begins within a block of fenced code or a row of a table that a passage has room for.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedkit.data.markdown import unbroken_parts
from embedkit.data.records import titled_text
from embedkit.tokenization.blocks import Extent, Offsets, Span, token_blocks

if TYPE_CHECKING:
    from embedkit.tokenization.tokenizer import Tokenizer

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
    extent: Extent = lambda text: None  # `Tokenizer.extent`
    chunk_tokens: int = 256
    chunk_overlap: int = 32

    @classmethod
    def of(cls, tokenizer: Tokenizer, **cutting: int) -> PassageSplitter:
        """Cut as a tokenizer counts."""
        return cls(offsets=tokenizer.offsets, extent=tokenizer.extent, **cutting)

    def __post_init__(self) -> None:
        if self.chunk_tokens < 8:
            raise ValueError(f"chunk_tokens is {self.chunk_tokens}; a passage needs at least 8")
        if not 0 <= self.chunk_overlap <= self.chunk_tokens // 2:
            raise ValueError(
                f"chunk_overlap is {self.chunk_overlap}; it must be between 0 and half of chunk_tokens, "
                f"{self.chunk_tokens // 2}"
            )

    def _fits(self, title: str, text: str, count: int, span: Span) -> bool:
        """Say whether all of a text's tokens are surely few enough under its title, which is not tokenized for that."""
        if title:
            count += len(title.encode()) + _bytes_of_word(text, span[0], self.chunk_tokens)
        return count <= self.chunk_tokens

    def __call__(self, title: str, text: str) -> list[Span]:
        """Return the passages of a text in order, as characters; [] for a text without tokens."""
        # Most texts are one passage, for which their tokens need not be looked at one by one.
        if (whole := self.extent(text)) is not None and self._fits(title, text, *whole):
            return [whole[1]]
        tokens = _Tokens.of(text, self.offsets)
        if not len(tokens):
            return []
        span = tokens.span(0, len(tokens))
        if self._fits(title, text, tokens.found, span):
            return [span]
        of_title = len(self.offsets(title)) if title else 0
        room = max(self.chunk_tokens - of_title, self.chunk_tokens // 4, 1)
        return _Cut(text, tokens, title, of_title, room, self.offsets).passages(
            min(self.chunk_overlap, room // 2)
        )


@dataclass
class _Tokens:
    """Where the tokens of a text start and stop, in a few bytes each: a book has millions.

    They are without white space, which some tokenizers count as part of the word after it; `found` counts those too of which
    nothing else is left.
    """

    starts: array[int] = field(default_factory=lambda: array("i"))
    stops: array[int] = field(default_factory=lambda: array("i"))
    found: int = 0

    @classmethod
    def of(cls, text: str, offsets: Offsets) -> _Tokens:
        tokens = cls()
        for block in token_blocks(offsets, text):
            tokens.found += len(block)
            for start, stop in block:
                if start < stop and text[start].isspace():
                    start = stop - len(text[start:stop].lstrip())
                if start < stop:
                    tokens.starts.append(start)
                    tokens.stops.append(stop)
        return tokens

    def __len__(self) -> int:
        return len(self.starts)

    def span(self, first: int, stop: int) -> Span:
        """Return the characters of the tokens from `first` up to, not including, `stop`."""
        return self.starts[first], self.stops[stop - 1]

    def sentences(self, text: str) -> array[int]:
        """Return the numbers of the tokens, but for the first, that begin a sentence."""
        found = array("i", [0])
        for match in _SENTENCE_END.finditer(text):
            number = bisect_left(self.starts, match.end(), found[-1])
            if found[-1] < number < len(self):
                found.append(number)
        return found[1:]

    def begins_word(self, number: int) -> bool:
        return self.starts[number] > self.stops[number - 1]


@dataclass
class _Cut:
    """The cutting of one text."""

    text: str
    tokens: _Tokens
    title: str
    of_title: int  # tokens
    room: int  # tokens of the text in one passage
    offsets: Offsets
    sentences: array[int] = field(init=False)
    blocks: list[Span] = field(
        init=False
    )  # tokens that are not to be cut in two: the first, and the one behind the last
    exact: bool = field(init=False)  # every passage must be measured: it may have tokens of white space

    def __post_init__(self) -> None:
        self.blocks = self._blocks()
        self.sentences = self.tokens.sentences(self.text)
        if self.blocks:
            self.sentences = array("i", (number for number in self.sentences if self._is_border(number)))
        self.exact = len(self.tokens) < self.tokens.found

    def _blocks(self) -> list[Span]:
        found = []
        for start, stop in unbroken_parts(self.text):
            first, last = bisect_left(self.tokens.starts, start), bisect_left(self.tokens.starts, stop)
            if 1 < last - first <= self.room:
                found.append((first, last))
        return found

    def _block_around(self, number: int) -> Span | None:
        """Return the block that would be cut in two before a token."""
        at = bisect_left(self.blocks, (number, 0)) - 1
        return self.blocks[at] if at >= 0 and number < self.blocks[at][1] else None

    def _is_border(self, number: int) -> bool:
        return self._block_around(number) is None

    def passages(self, overlap: int) -> list[Span]:
        passages: list[Span] = []
        first = before = 0
        while True:
            stop = self._stop(first)
            if stop <= before:  # what follows has no room beside what is shared
                first, stop = before, self._stop(before)
            before = stop
            passages.append(self.tokens.span(first, stop))
            if stop == len(self.tokens):
                return passages
            earliest = max(first + 1, stop - overlap)
            first = (
                _first(self.sentences, earliest, stop)
                or self._first_word(range(earliest, stop + 1))
                or earliest
            )

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
        border = _last(self.sentences, least, stop)
        if border is None and (block := self._block_around(stop)) is not None and block[0] > first:
            border = block[0]
        return border or self._first_word(range(stop, least, -1)) or stop

    def _first_word(self, numbers: range) -> int | None:
        """Return the first of some tokens that begins a word, outside of blocks where there is one."""
        words = list(filter(self.tokens.begins_word, numbers))
        return next(filter(self._is_border, words), words[0] if words else None)

    def _excess(self, first: int, stop: int) -> int:
        """Say by how many tokens a passage under its title is too long; 0 or less where it fits."""
        start, end = self.tokens.span(first, stop)
        limit = self.of_title + self.room
        # Whole words have the tokens that they had in the text, but for the first one, which may have had a space before
        # it: byte-level BPE knows "Ġword" and "word" apart. In bytes it has as many tokens as it can have.
        if not self.exact and self._between_words(start) and self._between_words(end):
            most = self.of_title + stop - first + _bytes_of_word(self.text, start, limit)
            if most <= limit:
                return most - limit
        return len(self.offsets(titled_text(self.title, self.text[start:end]))) - limit

    def _between_words(self, at: int) -> bool:
        around = self.text[max(at - 1, 0) : at + 1]
        return at in (0, len(self.text)) or any(character.isspace() for character in around)


def _bytes_of_word(text: str, start: int, enough: int) -> int:
    """Return the bytes of the word that starts at a character, of one longer than `enough` characters those of as many."""
    space = _SPACE.search(text, start, start + enough)
    return len(text[start : space.start() if space else start + enough].encode())


def _last(borders: Sequence[int], above: int, upto: int) -> int | None:
    """Return the last border b with above < b <= upto."""
    at = bisect_right(borders, upto) - 1
    return borders[at] if at >= 0 and borders[at] > above else None


def _first(borders: Sequence[int], start: int, upto: int) -> int | None:
    """Return the first border b with start <= b <= upto."""
    at = bisect_left(borders, start)
    return borders[at] if at < len(borders) and borders[at] <= upto else None
