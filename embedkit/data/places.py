"""Where a passage stands in its file: lines, pages, slides, rows of a sheet, cells of a notebook, and the headings above it.

A reader gives its text marks. Each says what holds from a character of the text on, up to the next mark of its kind:

    lines     this character stands in line N of the file, and every line end in the text is one in the file
    line      all of this stands in line N, whatever line ends it holds: a row of JSON lines, a paragraph taken out of HTML
    page, slide, sheet, row, cell
    heading   a heading of a level, under those of higher levels before it; "" ends those of its level and below

The place of a passage is computed from the marks and the passage's bounds, without the white space around it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

MarkKind = Literal["lines", "line", "page", "slide", "sheet", "row", "cell", "heading"]
Span = tuple[int, int]  # first and last, both included


class Mark(NamedTuple):
    """What holds from character `at` of a text on; `level` is a heading's, from 1."""

    at: int
    kind: MarkKind
    value: int | str
    level: int = 0


FIRST_LINE = (Mark(0, "lines", 1),)  # of a text that is its file as it is


@dataclass(frozen=True, slots=True)
class Place:
    """Where a passage stands in its file; None, "" and () where that is not known or is nothing that the file has."""

    lines: Span | None = None
    pages: Span | None = None
    slides: Span | None = None
    sheet: str = ""
    rows: Span | None = None
    cells: Span | None = None
    headings: tuple[str, ...] = ()

    def named(self, path: str) -> str:
        """Name the place as people and editors read it.

        >>> Place(lines=(3, 9)).named("a.md"), Place(pages=(7, 7)).named("b.pdf")
        ('a.md:3-9', 'b.pdf p. 7')
        """
        if self.lines is not None:
            path = f"{path}:{_spelt(self.lines)}"
        if self.pages is not None:
            path += f" p. {_spelt(self.pages)}"
        if self.slides is not None:
            path += f" slide {_spelt(self.slides)}"
        if self.sheet:
            path += f" {self.sheet}"
        if self.rows is not None:
            path += f" row {_spelt(self.rows)}"
        if self.cells is not None:
            path += f" cell {_spelt(self.cells)}"
        return path

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:  # Any: JSON
        """Make again what `as_dict` gave.

        Raises:
            TypeError: it is something else.
        """
        parts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        return cls(**parts)

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """Return what is known, as JSON holds it."""
        fields = {
            name: getattr(self, name)
            for name in ("lines", "pages", "slides", "sheet", "rows", "cells", "headings")
        }
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in fields.items()
            if value
        }


def _spelt(span: Span) -> str:
    first, last = span
    return str(first) if first == last else f"{first}-{last}"


def place_of(marks: Sequence[Mark], text: str, start: int, stop: int) -> Place | None:
    """Return where characters `start` to `stop` of a text stand; None without marks, or where there are no words."""
    part = text[start:stop]
    start += len(part) - len(part.lstrip())
    last = start + len(part.strip()) - 1
    if not marks or last < start:
        return None
    found: dict[str, Span] = {}
    sheet = ""
    headings: list[Mark] = []
    for mark in marks:
        if mark.at > last:
            break
        if mark.kind == "heading":
            if mark.at <= start:
                headings = [*(above for above in headings if above.level < mark.level), mark]
        elif mark.kind == "sheet":
            sheet = str(mark.value) if mark.at <= start or not sheet else sheet
        else:
            first, end = _reached(mark, text, start, last)
            name = "line" if mark.kind == "lines" else mark.kind
            found[name] = (first, end) if mark.at <= start or name not in found else (found[name][0], end)
    return Place(
        found.get("line"),
        found.get("page"),
        found.get("slide"),
        sheet,
        found.get("row"),
        found.get("cell"),
        tuple(str(heading.value) for heading in headings if heading.value),
    )


def _reached(mark: Mark, text: str, start: int, last: int) -> Span:
    """Return the numbers that hold, by a mark that stands before `last`, at two characters."""
    number = int(mark.value)
    if mark.kind != "lines":
        return number, number
    start = max(start, mark.at)
    first = number + line_ends(text, mark.at, start)
    return first, first + line_ends(text, start, last)


def line_ends(text: str, start: int, stop: int) -> int:
    """Count the line ends in a part of a text: LF, with or without CR; CR where the text has no LF, as in files of old Macs."""
    found = text.count("\n", start, stop)
    return found or (text.count("\r", start, stop) if "\n" not in text else 0)


def marks_json(marks: Iterable[Mark]) -> str:
    """Write marks as they are stored: "" where there are none."""
    parts = [list(mark) if mark.level else list(mark[:3]) for mark in marks]
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")) if parts else ""


def read_marks(text: str) -> tuple[Mark, ...]:
    """Read what `marks_json` wrote."""
    return tuple(Mark(*part) for part in json.loads(text)) if text else ()
