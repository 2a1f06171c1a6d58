"""Which files are documents, what each kind needs, and what decides how files are read."""

from __future__ import annotations

from embedkit.data.documents.syntax import LANGUAGES
from embedkit.extras import has_extra

# The extra that reads files of an ending; "" for those that need none.
DOCUMENTS = {
    ".pdf": "pdf",
    ".docx": "",
    ".pptx": "",
    ".xlsx": "sheets",
    ".xlsb": "sheets",
    ".xls": "sheets",
    ".ods": "sheets",
    ".odt": "",
    ".odp": "",
    ".epub": "",
    ".eml": "",
    ".mbox": "",
    ".ipynb": "",
    ".srt": "",
    ".vtt": "",
}
# To be raised when a reader makes something else of its files: what was read before is read again.
_VERSION = "1"


def is_document(suffix: str) -> bool:
    return suffix in DOCUMENTS


def is_readable(suffix: str) -> bool:
    """Say whether what a kind of document needs is installed."""
    extra = DOCUMENTS[suffix]
    return not extra or has_extra(extra)


def readers() -> str:
    """Name what decides how files are read here: the version of the readers, and the extras that are installed."""
    extras = sorted({"code", *DOCUMENTS.values()} - {""})
    return " ".join([_VERSION, *(extra for extra in extras if has_extra(extra))])


def read_otherwise(before: str) -> frozenset[str]:
    """Return the endings of files that are read otherwise now than by the `readers()` of an earlier time."""
    version, *then = before.split(" ")
    if version != _VERSION:
        return frozenset([*LANGUAGES, *DOCUMENTS])
    changed = set(then) ^ set(readers().split(" ")[1:])
    endings = [ending for ending, extra in DOCUMENTS.items() if extra in changed]
    return frozenset([*endings, *(LANGUAGES if "code" in changed else ())])
