"""PDF: the text of its pages, and the headings of its outline."""

from __future__ import annotations

import re

from embedkit.data.documents.page import DamagedError, Text, TextWriter
from embedkit.data.places import Mark
from embedkit.extras import load_extra

_BROKEN_WORD = re.compile("[\ufffe\x02\xad]\\s*")  # where a line ends within a word
_BULLET = re.compile(
    "^[\ue000-\uf8ff](?=[ \t])", re.MULTILINE
)  # of a font of signs, which has numbers of its own
_FILE_NAME = re.compile(r"\.\w{1,5}$|^untitled\b|^Microsoft \w+ - ", re.IGNORECASE)


def read_pdf(raw: bytes) -> Text:
    """Read the pages of a document; headings are those of its outline, where they stand on their pages.

    Raises:
        DamagedError: it is damaged or encrypted, or its pages are pictures.
    """
    opened = load_extra("pdf", purpose="reading .pdf files").open_pdf(raw)
    written = TextWriter()
    for number, page in enumerate(opened.pages(), 1):
        text = _BROKEN_WORD.sub("", page.replace("\r\n", "\n").replace("\0", ""))
        text = _BULLET.sub("•", text)
        written.mark("page", number)
        _mark_headings(text, opened.outline.get(number, ()), written)
        written.line(text)
    done = written.finished(opened.title if not _FILE_NAME.search(opened.title.strip()) else "")
    if not done.text:
        raise DamagedError(
            "its pages hold no text, only pictures. Recognize their text first, such as with ocrmypdf"
        )
    return done


def _mark_headings(text: str, outline: object, written: TextWriter) -> None:
    """Mark headings of a page where their words stand; one that is not found begins with the page."""
    assert isinstance(outline, list | tuple)
    lead = len(text) - len(text.lstrip("\r\n"))
    found = []
    for title, level in outline:
        words = re.search(r"\s+".join(map(re.escape, title.split())), text, re.IGNORECASE)
        found.append(
            Mark(written.at + max((words.start() if words else 0) - lead, 0), "heading", title, level)
        )
    written.marks += sorted(found, key=lambda mark: mark.at)
