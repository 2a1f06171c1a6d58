"""Markdown files: their title, their text, and the fields of their front matter."""

from __future__ import annotations

import re
from typing import Any

from embedkit.data.front_matter import take_front_matter

# A title stands near the start of its file.
_TITLE_LINES = 50
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?")
_CLOSING = re.compile(r"(?:^|[ \t]+)#+[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}=+[ \t]*")
# Lines that a paragraph ends with: quotes, items of lists, rules, tables, and the underline of a smaller heading.
_OTHER_BLOCK = re.compile(r" {0,3}(?:>|[-+*][ \t]|\d{1,9}[.)][ \t]|\||([-*_])[ \t]*(?:\1[ \t]*)+$|-+[ \t]*$)")


def read_markdown(text: str) -> tuple[str, str, dict[str, Any]]:  # Any: whatever JSON holds
    r"""Return the title (that of the front matter, else the first heading, else ''), the text, and the other fields.

    "---\ntitle: Front\nyear: 2024\n---\n# Heading\n" -> "Front", "# Heading\n", {"year": 2024}
    """
    fields, text = take_front_matter(text)
    title = fields.get("title")
    if isinstance(title, list | dict | bool):  # something else of that name
        return first_heading(text), text, fields
    fields.pop("title", None)
    given = "" if title is None else str(title).strip()
    return given or first_heading(text), text, fields


def first_heading(text: str) -> str:
    r"""Return the first heading of the first level near the start of a text, or ''.

    "```\n# a comment\n```\n# Closed #" -> "Closed"; "Setext\n===" -> "Setext"
    """
    fence = ""  # what opened the code that the line is in
    commented = False
    paragraph: list[str] = []  # the lines before, which an underline makes a heading
    for line in text.split("\n", _TITLE_LINES)[:_TITLE_LINES]:
        line = line.expandtabs(4).rstrip()
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
            if len(found[1]) == 1 and title:
                return title
            paragraph = []
        elif paragraph and _UNDERLINE.fullmatch(line):
            return " ".join(paragraph)
        elif not line or _OTHER_BLOCK.match(line) or (not paragraph and line.startswith("    ")):
            paragraph = []
        else:
            paragraph.append(line.strip())
    return ""
