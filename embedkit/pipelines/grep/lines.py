"""The lines of a file that show why a passage was found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from embedkit.data.formats import decode_whole
from embedkit.data.records import Hit
from embedkit.errors import RecordError
from indexes import mark_words

NEAR = 2  # lines shown on either side of the best one, where nobody says how many


@dataclass(frozen=True)
class Line:
    """A line as it is shown: its number (None where the text is not the file's own), its text and what matches in it."""

    number: int | None
    text: str
    spans: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Excerpt:
    """Lines of a hit, the best of them, and where it stands: `first` is the line to open the file at."""

    hit: Hit
    file: Path
    lines: Sequence[Line]
    best: int  # of `lines`

    @property
    def first(self) -> int:
        line = self.lines[self.best].number if self.lines else None
        return line or (self.hit.place.lines[0] if self.hit.place and self.hit.place.lines else 1)


def excerpts(
    query: str, hits: Sequence[Hit], *, context: int | None = None, regex: str | None = None
) -> list[Excerpt]:
    """Return of each hit the line with most of the query's words, or the first that matches, with lines around it.

    With `context` None these are at most two on either side, of the passage; else so many, of the file.
    """
    wanted = None if regex is None else re.compile(regex)
    numbered = [_passage_lines(hit) for hit in hits]
    flat = [line for lines in numbered for line in lines.texts]
    marked = iter(mark_words(query, flat))
    found = []
    for hit, lines in zip(hits, numbered, strict=True):
        spans = [next(marked) for _ in lines.texts]
        if wanted is not None:
            spans = [_matches(wanted, text) or each for text, each in zip(lines.texts, spans, strict=True)]
        best = _best(lines.texts, spans, wanted)
        found.append(_excerpt(hit, lines, spans, best, context))
    return found


@dataclass(frozen=True)
class _Lines:
    """The lines of a passage; `all` are those of the file, where the passage is as it stands there from line `first` on.

    `numbers` are those of lines that stand apart in the file, such as of subtitles.
    """

    texts: list[str]
    first: int | None
    all: Sequence[str] = ()
    numbers: Sequence[int] = ()

    def number(self, at: int) -> int | None:
        if self.numbers:
            return self.numbers[at]
        return None if self.first is None else self.first + at


def _passage_lines(hit: Hit) -> _Lines:
    text = hit.text.strip("\r\n")
    place = hit.place
    own = _Lines([line.rstrip() for line in text.splitlines()], None)
    if place is None or place.lines is None:
        return own
    first, last = place.lines
    lines = _file_lines(Path(hit.source))
    part = lines[first - 1 : last]
    stripped = [line.strip() for line in text.strip().splitlines()]
    # The file may have changed since, or its text be written otherwise, as in HTML: then the passage is shown as it is.
    if len(part) != len(stripped) or any(
        shown not in line for shown, line in zip(stripped, part, strict=True)
    ):
        return replace(own, numbers=_numbers(own.texts, part, first))
    return _Lines(list(part), first, lines)


def _numbers(texts: Sequence[str], part: Sequence[str], first: int) -> list[int]:
    """Return the lines of a part of a file that hold some texts, in their order; [] where not all are found."""
    found: list[int] = []
    at = 0
    for text in texts:
        while at < len(part) and text.strip() not in part[at]:
            at += 1
        if at == len(part):
            return []
        found.append(first + at)
        at += 1
    return found


@lru_cache(maxsize=32)
def _file_lines(path: Path) -> Sequence[str]:
    try:
        text, _ = decode_whole(path.read_bytes(), str(path), guess=True)
    except (OSError, RecordError):
        return ()
    lines = [line.rstrip() for line in text.split("\n" if "\n" in text else "\r")]
    return lines if lines[-1] else lines[:-1]


def _best(
    texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]], wanted: re.Pattern[str] | None
) -> int:
    def value(number: int) -> tuple[bool, int, bool]:
        words = {texts[number][start:stop].lower() for start, stop in spans[number]}
        matches = wanted is not None and wanted.search(texts[number]) is not None
        return matches, len(words), bool(texts[number].strip())

    return max(range(len(texts)), key=lambda number: (value(number), -number), default=0)


def _matches(wanted: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    return [found.span() for found in wanted.finditer(text) if found.end() > found.start()]


def _excerpt(
    hit: Hit, lines: _Lines, spans: Sequence[Sequence[tuple[int, int]]], best: int, context: int | None
) -> Excerpt:
    near = NEAR if context is None else context
    low, high = max(0, best - near), min(len(lines.texts), best + near + 1)
    shown = [Line(lines.number(at), lines.texts[at], spans[at]) for at in range(low, high)]
    at_best = best - low
    if context is not None and lines.first is not None:  # beyond the passage, too
        start = lines.first - 1  # of the passage in the file
        before = range(max(0, start + best - near), start + low)
        after = range(start + high, min(len(lines.all), start + best + near + 1))
        shown = [
            *(Line(at + 1, lines.all[at]) for at in before),
            *shown,
            *(Line(at + 1, lines.all[at]) for at in after),
        ]
        at_best += len(before)
    while context is None and shown and not shown[0].text.strip() and at_best:
        shown, at_best = shown[1:], at_best - 1
    while context is None and shown and not shown[-1].text.strip() and at_best < len(shown) - 1:
        shown = shown[:-1]
    return Excerpt(hit, Path(hit.source), shown, at_best)
