"""pypdfium2: the text of PDF pages."""

from __future__ import annotations

from collections.abc import Iterator

import pypdfium2
from pypdfium2.raw import FPDF_ERR_PASSWORD

from embedkit.errors import RecordError


class Pdf:
    """An open document: `outline` holds (heading, level) by page, from 1."""

    def __init__(self, raw: bytes) -> None:
        try:
            self._document = pypdfium2.PdfDocument(raw)
        except pypdfium2.PdfiumError as exc:
            if exc.err_code == FPDF_ERR_PASSWORD:
                raise RecordError("it is encrypted. Save it again without a password") from exc
            raise RecordError("it is cut short or damaged. Make or fetch it again") from exc
        self.title = str(self._document.get_metadata_dict().get("Title", ""))
        self.outline: dict[int, list[tuple[str, int]]] = {}
        for entry in self._document.get_toc(max_depth=6):
            dest, title = entry.get_dest(), " ".join(entry.get_title().split())
            page = dest.get_index() if dest is not None else None
            if page is not None and title:
                self.outline.setdefault(page + 1, []).append((title, entry.level + 1))

    def pages(self) -> Iterator[str]:
        for page in self._document:
            text = page.get_textpage()
            yield text.get_text_bounded()
            text.close()
            page.close()


def open_pdf(raw: bytes) -> Pdf:
    """Open a document.

    Raises:
        RecordError: it is damaged or encrypted.
    """
    return Pdf(raw)
