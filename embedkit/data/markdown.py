"""Markdown files: their title, their headings, their text, and the fields of their front matter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from embedkit.data.front_matter import take_front_matter
from embedkit.data.places import Mark

# A title stands near the start of its file.
_TITLE_LINES = 50
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?")
_CLOSING = re.compile(r"(?:^|[ \t]+)#+[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(?:(=+)|-+)[ \t]*")
# Lines that a paragraph ends with: quotes, items of lists, rules, tables, and the underline of a smaller heading.
_OTHER_BLOCK = re.compile(r" {0,3}(?:>|[-+*][ \t]|\d{1,9}[.)][ \t]|\||([-*_])[ \t]*(?:\1[ \t]*)+$|-+[ \t]*$)")


class Markdown(NamedTuple):
    """What a file holds: `fields` are those of the front matter but for the title, `marks` its lines and headings."""

    title: str
    text: str
    fields: dict[str, Any]  # Any: whatever JSON holds
    marks: list[Mark]


def read_markdown(text: str) -> Markdown:
    r"""Return the title (that of the front matter, else the first heading, else ''), the text, and the other fields.

    "---\ntitle: Front\nyear: 2024\n---\n# Heading\n" -> "Front", "# Heading\n", {"year": 2024}
    """
    fields, text, lines = take_front_matter(text)
    headings = list(find_headings(text))
    marks = sorted(
        [*(Mark(at, "lines", number) for at, number in lines), *headings], key=lambda mark: mark.at
    )
    title = fields.get("title")
    given = ""
    if not isinstance(title, list | dict | bool):  # else it is something else of that name
        fields.pop("title", None)
        given = "" if title is None else str(title).strip()
    return Markdown(given or _title(text, headings), text, fields, marks)


def _title(text: str, headings: Iterable[Mark]) -> str:
    """Return the first heading of the first level near the start of a text, or ''."""
    found = next((heading for heading in headings if heading.level == 1), None)
    if found is None or text.count("\n", 0, found.at) >= _TITLE_LINES:
        return ""
    return str(found.value)


def unbroken_parts(text: str) -> Iterator[tuple[int, int]]:
    r"""Yield start and stop of what is not to be cut in two: blocks of fenced code, and rows of tables.

    "a\n```\nb\n```\n| c | d |" -> (2, 11), (11, 20)
    """
    if "|" not in text and "```" not in text and "~~~" not in text:
        return
    fence, begun, at = "", 0, 0
    for raw in text.splitlines(keepends=True):
        here, at = at, at + len(raw)
        line = raw.strip()
        if fence:
            if line and set(line) == {fence[0]} and len(line) >= len(fence):
                yield begun, at
                fence = ""
        elif found := _FENCE.match(raw.rstrip()):
            fence, begun = found[1], here
        elif line.startswith("|"):
            yield here, at
    if fence:
        yield begun, at


def find_headings(text: str) -> Iterator[Mark]:
    r"""Yield the headings of a text in order, with their levels.

    "```\n# a comment\n```\n# One #\nTwo\n---" -> One of level 1 at 18, Two of level 2 at 26
    """
    fence = ""  # what opened the code that the line is in
    commented = False
    paragraph: list[str] = []  # the lines before, which an underline makes a heading
    begun = at = 0  # of the paragraph, of the line
    for raw in text.split("\n"):
        here, at = at, at + len(raw) + 1
        line = raw.expandtabs(4).rstrip()
        if fence:
            mark = line.strip()
            if set(mark) == {fence[0]} and len(mark) >= len(fence):
                fence = ""
        elif commented or (not paragraph and line.lstrip().startswith("<!--")):
            commented = "-->" not in line
        elif found := _FENCE.match(line):
            fence, paragraph = found[1], []
        elif found := _HEADING.fullmatch(line):
            title = _CLOSING.sub("", found[2] or "").strip()
            if title:
                yield Mark(here, "heading", title, len(found[1]))
            paragraph = []
        elif paragraph and (found := _UNDERLINE.fullmatch(line)):
            yield Mark(begun, "heading", " ".join(paragraph), 1 if found[1] else 2)
            paragraph = []
        elif not line or _OTHER_BLOCK.match(line) or (not paragraph and line.startswith("    ")):
            paragraph = []
        else:
            begun = begun if paragraph else here
            paragraph.append(line.strip())


def read_sections(text: str) -> list[tuple[str, str]]:
    r"""Cut a text at its headings: each with what stands under it, up to the next; '' for what stands before the first.

    "a\n# B\nb\nC\n---\nc" -> ("", "a"), ("B", "b"), ("C", "c")
    """
    headings = list(find_headings(text))
    places = [*(heading.at for heading in headings), len(text)]
    found = [("", text[: places[0]].strip())]
    for heading, stop in zip(headings, places[1:], strict=True):
        lines = text[heading.at : stop].split("\n")
        last = 0
        if not _HEADING.fullmatch(lines[0].expandtabs(4).rstrip()):
            last = next(
                n for n, line in enumerate(lines) if n and _UNDERLINE.fullmatch(line.expandtabs(4).rstrip())
            )
        found.append((str(heading.value), "\n".join(lines[last + 1 :]).strip()))
    return found
