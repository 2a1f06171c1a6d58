"""Files that are one document: their text with its title, fields and places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from embedkit.data.documents.code import is_code, read_code
from embedkit.data.documents.kinds import is_document
from embedkit.data.formats import decode_whole, plain_suffix, read_whole
from embedkit.data.html_charset import decode_html
from embedkit.data.html_text import extract_text
from embedkit.data.markdown import read_markdown
from embedkit.data.places import FIRST_LINE, Mark
from embedkit.data.records import Document


class _Content(NamedTuple):
    """What a reader makes of a file. A reader of a new kind goes into `_content`; its marks say where the text stands."""

    title: str
    text: str
    marks: tuple[Mark, ...]
    fields: dict[str, Any]  # Any: whatever front matter holds
    encoding: str = "utf-8"
    parts: tuple[int, ...] = ()


def read_whole_file(stream: BinaryIO, source: str, max_line_bytes: int, *, guess: bool = False) -> Document:
    """Read an open file as one document; `source` is its name in ids and messages, and its ending tells its kind.

    With `guess` the encoding of a text that is neither UTF-8 nor UTF-16 is guessed; `Document.encoding` names it.

    Raises:
        RecordError: it is too large, damaged, or no text.
    """
    content = _content(read_whole(stream, source, max_line_bytes), source, guess)
    title = content.title
    if (
        not title and content.text.strip()
    ):  # a file without words has nothing that its name could be the title of
        title = Path(source).stem
    document = Document(source, content.text, title, content.fields, source, 0)
    return replace(document, marks=content.marks, encoding=content.encoding, parts=content.parts)


def _content(raw: bytes, source: str, guess: bool) -> _Content:
    suffix = plain_suffix(source)
    if suffix in (".html", ".htm"):
        return _html(*decode_html(raw, source))
    if is_document(suffix):
        from embedkit.data.documents.child import read_document

        read = read_document(raw, source, suffix)
        return _Content(read.title, read.text, read.marks, dict(read.fields), parts=read.parts)
    text, encoding = decode_whole(raw, source, guess=guess)
    if suffix in (".md", ".markdown"):
        title, text, fields, found = read_markdown(text)
        return _Content(title, text, tuple(found), fields, encoding)
    if is_code(suffix):
        parts, marks = read_code(text, suffix)
        return _Content("", text, marks, {}, encoding, parts)
    return _Content(_rst_heading(text) if suffix == ".rst" else "", text, FIRST_LINE, {}, encoding)


def _html(page: str, charset: str) -> _Content:
    title, text, lines, headings = extract_text(page)
    marks = [Mark(at, "line", number) for at, number in lines]
    marks += [Mark(at, "heading", words, level) for at, level, words in headings]
    return _Content(title, text, tuple(sorted(marks, key=lambda mark: mark.at)), {}, charset)


def _rst_heading(text: str) -> str:
    """Return the first reStructuredText heading among the first lines, or ''."""
    lines = text.split("\n", 50)[:50]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        stripped, underline = line.strip(), following.strip()
        if stripped and len(underline) >= 3 and set(underline) <= set("=-~*#") and len(set(underline)) == 1:
            return stripped
    return ""
