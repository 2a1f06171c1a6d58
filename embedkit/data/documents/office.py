"""Slides of PowerPoint, and sheets of every kind of workbook."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any
from xml.etree.ElementTree import Element

from embedkit.data.documents.archive import Archive, attribute, local, title_of
from embedkit.data.documents.page import DamagedError, Text, TextWriter
from embedkit.extras import load_extra

MAX_ROWS = 50_000  # of all sheets of a file: more are data, which are better read as CSV
_MAX_HEADER_CHARS = 80  # a longer cell is a sentence, and no name of a column


def read_pptx(raw: bytes) -> Text:
    """Read slides in their order, each with its title as its heading, its tables row by row, and its notes."""
    archive = Archive(raw)
    presentation = "ppt/presentation.xml"
    related = archive.relations(presentation)
    written = TextWriter()
    slides = [each for each in archive.xml(presentation).iter() if local(each) == "sldId"]
    for number, slide in enumerate(slides, 1):
        relation = next((value for key, value in slide.attrib.items() if key.endswith("}id")), "")
        if relation not in related:
            raise DamagedError(f"it names a slide {number} that it does not have. Save it again")
        name = related[relation][1]
        written.begin_slide(number)
        _write_shapes(archive.xml(name), written)
        for kind, notes in archive.relations(name).values():
            if kind == "notesSlide":
                _write_shapes(archive.xml(notes), written)
    return written.finished(title_of(archive))


# Placeholders of a slide or of its notes that say what all of them say.
_FURNITURE = ("sldNum", "dt", "ftr", "hdr", "sldImg")


def _write_shapes(root: Element, written: TextWriter) -> None:
    """Write the texts of a slide, its title first."""
    titles, others = [], []
    for shape in root.iter():
        if local(shape) == "sp":
            kind = next((attribute(each, "type") for each in shape.iter() if local(each) == "ph"), "")
            paragraphs = [_run_text(each) for each in shape.iter() if local(each) == "p"]
            if kind in ("title", "ctrTitle"):
                titles.append(" ".join(paragraphs))
            elif kind not in _FURNITURE:
                others += paragraphs
        elif local(shape) == "tr":
            others.append(" | ".join(_cell_text(each) for each in shape if local(each) == "tc"))
    for title in titles:
        written.heading(title, 1)
    for text in others:
        written.line(text)


def _cell_text(cell: Element) -> str:
    return " ".join(_run_text(each) for each in cell.iter() if local(each) == "p")


def _run_text(paragraph: Element) -> str:
    parts = []
    for each in paragraph.iter():
        if local(each) == "t":
            parts.append(each.text or "")
        elif local(each) in ("br", "tab"):
            parts.append(" ")
    return "".join(parts)


def read_sheets(raw: bytes) -> Text:
    """Read the sheets of a workbook, each row with the names of its columns where the first row has them."""
    if raw.startswith(b"PK"):
        Archive(raw)
    written = TextWriter()
    rows = 0
    for name, sheet in load_extra("sheets", purpose="reading sheets").sheets(raw):
        written.mark("sheet", name)
        written.mark("row", 1, part=True)
        header: Sequence[str] | None = None
        for number, cells in sheet:
            texts = [_shown(cell) for cell in cells]
            if not any(texts):
                continue
            rows += 1
            if rows > MAX_ROWS:
                raise DamagedError(
                    f"it has more than {MAX_ROWS:,} rows, which are read as data. Save them as CSV"
                )
            written.mark("row", number, part=True)
            if header is None:
                header = texts if _is_header(cells) else ()
                written.line("; ".join(text for text in texts if text))
                continue
            written.line("; ".join(_labelled(header, at, text) for at, text in enumerate(texts) if text))
    return written.finished()


def _is_header(cells: Sequence[Any]) -> bool:  # Any: values of cells
    filled = [cell for cell in cells if cell not in (None, "")]
    return len(filled) > 1 and all(
        isinstance(cell, str) and len(cell) <= _MAX_HEADER_CHARS for cell in filled
    )


def _labelled(header: Sequence[str], at: int, text: str) -> str:
    return f"{header[at]}: {text}" if at < len(header) and header[at] else text


def _shown(cell: Any) -> str:  # Any: as above
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.15g}"
    if isinstance(cell, datetime):
        return cell.isoformat(" ").removesuffix(" 00:00:00")
    if isinstance(cell, date | time):
        return cell.isoformat()
    return " ".join(str(cell).split()) if cell is not None else ""
