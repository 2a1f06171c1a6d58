"""What a reader makes of a document, and putting it together."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedkit.data.html_text import extract_text
from embedkit.data.places import Mark, MarkKind


class DamagedError(Exception):
    """A document cannot be read; the message is a sentence that goes on after its name."""


@dataclass(frozen=True)
class Text:
    """The text of a document with its title, fields and places; see `Document`."""

    title: str
    text: str
    marks: tuple[Mark, ...]
    parts: tuple[int, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)  # Any: whatever JSON holds


class TextWriter:
    """Puts a text together line by line, with its marks."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self.marks: list[Mark] = []
        self.parts: list[int] = []
        self.first_heading = ""

    @property
    def at(self) -> int:
        return self._text.tell()

    def line(self, text: str) -> None:
        """Add a line; one without words adds nothing."""
        if text.strip():
            self._text.write(text.strip("\r\n") + "\n")

    def mark(self, kind: MarkKind, value: int | str, *, part: bool = False) -> None:
        """Note what holds of what is added from here on; `part` begins a part."""
        self.marks.append(Mark(self.at, kind, value))
        if part:
            self.parts.append(self.at)

    def begin_slide(self, number: int) -> None:
        """Note that a slide begins, which headings of others do not hold for."""
        self.mark("slide", number, part=True)
        if self.first_heading:
            self.marks.append(Mark(self.at, "heading", "", 1))

    def heading(self, text: str, level: int) -> None:
        """Note a heading, and add it as a line."""
        text = " ".join(text.split())
        if text:
            self.marks.append(Mark(self.at, "heading", text, level))
            self.first_heading = self.first_heading or text
            self.line(text)

    def page(self, html: str, name: str = "") -> None:
        """Add the text of an HTML page, with its headings, or under its `name` if it has none; there is no line of it in the document."""
        found = extract_text(html)
        begun = self.at
        if name and not found.headings:
            self.marks.append(Mark(begun, "heading", name, 1))
        self.marks += [Mark(begun + at, "heading", words, level) for at, level, words in found.headings]
        if found.headings and not self.first_heading:
            self.first_heading = found.headings[0][2]
        self.line(found.text)

    def finished(self, title: str = "", fields: Mapping[str, Any] | None = None) -> Text:  # Any: as above
        title = " ".join(title.split()) or self.first_heading
        text = self._text.getvalue()
        marks = tuple(mark for mark in self.marks if mark.at < len(text))
        parts = tuple(at for at in dict.fromkeys(self.parts) if at < len(text))
        return Text(title, text, marks, parts, fields or {})
