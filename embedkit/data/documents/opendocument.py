"""Texts and slides of OpenDocument, as LibreOffice writes them."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from embedkit.data.documents.archive import Archive, attribute, local
from embedkit.data.documents.page import DamagedError, Text, TextWriter

# What is no text of the document: comments, what was deleted, marks and numbers of notes, styles.
_SILENT = frozenset(
    "annotation tracked-changes note-citation automatic-styles font-face-decls scripts settings".split()  # noqa: SIM905
)


def read_opendocument(raw: bytes) -> Text:
    """Read a text with its headings, or slides with their titles and notes; tables row by row."""
    archive = Archive(raw)
    if "META-INF/manifest.xml" in archive.names and b"encryption-data" in archive.read(
        "META-INF/manifest.xml"
    ):
        raise DamagedError("it is encrypted. Save it again without a password")
    written = TextWriter()
    _Reader(written).read(archive.xml("content.xml"))
    title = ""
    if "meta.xml" in archive.names:
        found = (each.text or "" for each in archive.xml("meta.xml").iter() if local(each) == "title")
        title = next(found, "")
    return written.finished(title)


class _Reader:
    """The walk through one document."""

    def __init__(self, written: TextWriter) -> None:
        self.written, self.slides = written, 0

    def read(self, root: Element) -> None:
        pending = [root]
        while pending:
            element = pending.pop()
            name = local(element)
            if name in _SILENT:
                continue
            if name == "page":
                self.slides += 1
                self.written.begin_slide(self.slides)
            if name == "h":
                level = attribute(element, "outline-level")
                self.written.heading(_said(element), int(level) if level.isdigit() else 1)
            elif name == "p":
                self.written.line(_said(element))
            elif name == "table-row":
                cells = (each for each in element if local(each) in ("table-cell", "covered-table-cell"))
                self.written.line(" | ".join(filter(None, map(_of_cell, cells))))
            elif name == "frame" and attribute(element, "class") == "title":
                self.written.heading(" ".join(_paragraphs(element)), 1)
            else:
                pending += reversed(element)


def _paragraphs(element: Element) -> list[str]:
    return [_said(each) for each in element.iter() if local(each) in ("p", "h")]


def _of_cell(cell: Element) -> str:
    return " ".join(_paragraphs(cell))


def _said(element: Element) -> str:
    """Return the text of a paragraph, with that of its notes and text boxes behind it."""
    parts: list[str] = []
    beside: list[str] = []
    pending: list[Element | str] = [element]
    while pending:
        each = pending.pop()
        if isinstance(each, str):
            parts.append(each)
            continue
        name = local(each)
        if name in ("s", "tab", "line-break"):
            parts.append(" ")
        elif name in ("note", "text-box"):
            beside += _paragraphs(each)
        elif name not in _SILENT:
            inner: list[Element | str] = [each.text or ""]
            for child in each:
                inner += [child, child.tail or ""]
            pending += reversed(inner)
    return " ".join(["".join(parts), *beside])
