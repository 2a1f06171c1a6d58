"""Documents of Word (.docx)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from embedkit.data.documents.archive import Archive, attribute, local, title_of
from embedkit.data.documents.page import Text, TextWriter

# What is no text of the document: what was deleted or moved away, codes of fields, formats, and what older programs show instead.
_SILENT = frozenset("del moveFrom delText instrText pPr rPr tblPr trPr tcPr sectPr Fallback".split())  # noqa: SIM905
_NOTES = {"footnoteReference": "footnote", "endnoteReference": "endnote"}
_HEADING = re.compile(r"heading ([1-9])", re.IGNORECASE)


def read_docx(raw: bytes) -> Text:
    """Read a document: its paragraphs, lists, tables and notes, with its headings."""
    archive = Archive(raw)
    main = next((name for kind, name in archive.relations("").values() if kind == "officeDocument"), "")
    written = TextWriter()
    _Reader(archive, main or "word/document.xml", written).read()
    return written.finished(title_of(archive))


class _Reader:
    """The walk through one document."""

    def __init__(self, archive: Archive, main: str, written: TextWriter) -> None:
        self.root, self.written = archive.xml(main), written
        self.levels: dict[str, int] = {}  # of the styles of headings
        self.notes: dict[tuple[str, str], Element] = {}
        for kind, name in archive.relations(main).values():
            if kind == "styles" and name in archive.names:
                self.levels = _heading_styles(archive.xml(name))
            if kind in ("footnotes", "endnotes") and name in archive.names:
                notes = ((each, attribute(each, "id")) for each in archive.xml(name))
                self.notes.update({(kind[:-1], number): each for each, number in notes})

    def read(self) -> None:
        pending = [self.root]
        while pending:
            element = pending.pop()
            name = local(element)
            if name == "p":
                self._paragraph(element)
            elif name == "tr":
                cells = (self._said(each) for each in element if local(each) in ("tc", "sdt"))
                self.written.line(" | ".join(cell for cell in cells if cell.strip()))
            elif name not in _SILENT:
                pending += reversed(element)

    def _paragraph(self, element: Element) -> None:
        text, level = self._said(element), self._level(element)
        if level:
            self.written.heading(text, level)
        else:
            self.written.line(text)

    def _level(self, paragraph: Element) -> int:
        """Return the level of a heading, from 1; 0 for others."""
        for each in paragraph:
            if local(each) == "pPr":
                own = {local(inner): attribute(inner, "val") for inner in each}
                return _outline(own.get("outlineLvl", "")) or self.levels.get(own.get("pStyle", ""), 0)
        return 0

    def _said(self, element: Element) -> str:
        """Return the text of a paragraph or cell, with that of its notes behind it."""
        parts: list[str] = []
        notes: list[str] = []
        pending = list(reversed(element))
        while pending:
            each = pending.pop()
            name = local(each)
            if name == "t":
                parts.append(each.text or "")
            elif name in ("tab", "br", "cr"):
                parts.append(" ")
            elif name == "noBreakHyphen":
                parts.append("-")
            elif name in _NOTES:
                note = self.notes.get((_NOTES[name], attribute(each, "id")))
                notes += [] if note is None else [self._said(note).strip()]
            elif name not in _SILENT:
                if name == "p" and parts:
                    parts.append(" ")
                pending += reversed(each)
        return " ".join(["".join(parts), *notes])


def _heading_styles(root: Element) -> dict[str, int]:
    """Return the styles of headings with their levels; a style has that of the one it is based on."""
    levels: dict[str, int] = {}
    bases: dict[str, str] = {}
    for style in root:
        if local(style) != "style":
            continue
        found: Mapping[str, str] = {local(each): attribute(each, "val") for each in style.iter()}
        named = _HEADING.fullmatch(found.get("name", ""))
        level = int(named[1]) if named else _outline(found.get("outlineLvl", ""))
        key = attribute(style, "styleId")
        bases[key] = found.get("basedOn", "")
        if level:
            levels[key] = level
    for key in bases:
        seen, base = {key}, key
        while base not in levels and bases.get(base, "") not in ("", *seen):
            base = bases[base]
            seen.add(base)
        if base in levels:
            levels[key] = levels[base]
    return levels


def _outline(value: str) -> int:
    """Return the level of an outline, which Word counts from 0; 9 is that of a text."""
    return int(value) + 1 if value.isdigit() and int(value) < 9 else 0
