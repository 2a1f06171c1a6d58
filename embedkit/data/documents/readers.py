"""The reader of each kind of document."""

from __future__ import annotations

from collections.abc import Callable

from embedkit.data.documents.epub import read_epub
from embedkit.data.documents.mail import read_eml, read_mbox
from embedkit.data.documents.notebook import read_notebook
from embedkit.data.documents.office import read_pptx, read_sheets
from embedkit.data.documents.opendocument import read_opendocument
from embedkit.data.documents.page import Text
from embedkit.data.documents.pdf import read_pdf
from embedkit.data.documents.subtitles import read_subtitles
from embedkit.data.documents.word import read_docx

READERS: dict[str, Callable[[bytes], Text]] = {
    ".pdf": read_pdf,
    ".docx": read_docx,
    ".pptx": read_pptx,
    **dict.fromkeys((".xlsx", ".xlsb", ".xls", ".ods"), read_sheets),
    **dict.fromkeys((".odt", ".odp"), read_opendocument),
    ".epub": read_epub,
    ".eml": read_eml,
    ".mbox": read_mbox,
    ".ipynb": read_notebook,
    **dict.fromkeys((".srt", ".vtt"), read_subtitles),
}
