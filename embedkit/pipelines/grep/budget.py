"""What of the hits fits a language model's budget: best first, no line twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from embedkit.data.records import Hit

# Of UTF-8: English prose has four or more to a token of a language model, source code three to four.
BYTES_PER_TOKEN = 3


@dataclass(frozen=True)
class Piece:
    """A hit's text, or what of it was not in the pieces before, under the name of its place."""

    hit: Hit
    where: str
    text: str
    num_tokens: int


def count_tokens(text: str) -> int:
    """Return how many tokens a text is taken for, whatever the language model: rather too many than too few."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def fitting(hits: Sequence[Hit], budget: int) -> Iterator[Piece]:
    """Yield the best hits whose texts, under the names of their places, fit together into so many tokens.

    Passages of a document overlap: what an earlier piece has shown is cut away. One that is too long for what is left is passed
    over, for a shorter one may fit.
    """
    shown: dict[str, list[tuple[int, int]]] = {}
    left = budget
    for hit in hits:
        for start, stop in _unseen(hit.start, hit.stop, shown.get(hit.doc_id, ())):
            text = hit.text[start - hit.start : stop - hit.start]
            if not text.strip():
                continue
            where = _named(hit, start, stop)
            num_tokens = count_tokens(f"{where}\n{text}\n")
            if num_tokens <= left:
                left -= num_tokens
                shown.setdefault(hit.doc_id, []).append((start, stop))
                yield Piece(hit, where, text.strip("\r\n"), num_tokens)


def _unseen(start: int, stop: int, shown: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of a span that no other covers."""
    parts = []
    for first, last in sorted(shown):
        if first > start:
            parts.append((start, min(first, stop)))
        start = max(start, last)
        if start >= stop:
            break
    else:
        parts.append((start, stop))
    return [(first, last) for first, last in parts if last > first]


def _named(hit: Hit, start: int, stop: int) -> str:
    """Name the place of a part of a hit: its lines are counted where each line end of the text is one of the file."""
    place = hit.place
    if place is None or place.lines is None or (start, stop) == (hit.start, hit.stop):
        return hit.where
    whole = hit.text.strip()
    if whole.count("\n") != place.lines[1] - place.lines[0]:
        return hit.where
    before, text = hit.text[: start - hit.start], hit.text[start - hit.start : stop - hit.start]
    blank = text[: len(text) - len(text.lstrip())].count("\n")
    skipped = before.lstrip().count("\n") + blank
    first = place.lines[0] + skipped
    return replace(hit, place=replace(place, lines=(first, first + text.strip().count("\n")))).where
