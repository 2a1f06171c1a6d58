"""The fields of a document that a model with an expert for each of them tells apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedkit.data.records import Document
from embedkit.errors import RecordError

FieldTexts = tuple[str | None, ...]  # one for each field of the model; None where the document lacks it


def field_texts(values: Mapping[str, Any], fields: Sequence[str], where: str) -> FieldTexts:  # Any: JSON
    """Return the texts of a document's fields, in the order of `fields`; what is null, blank or not there is missing.

    A list of texts, such as keywords, is one text with commas between, and a number is as it is written.

    Raises:
        RecordError: a value is no text, or the document has none of the fields.
    """
    found = tuple(_text(values.get(name), name, where) for name in fields)
    if not any(found):
        raise _without_fields(fields, where)
    return found


def document_fields(document: Document, fields: Sequence[str], *, may_be_empty: bool = False) -> FieldTexts:
    """Return the texts of the fields of a document that was read: `text` and `title` are its own, others stand in its metadata.

    Raises:
        RecordError: a value is no text, or the document has none of the fields and `may_be_empty` is not set.
    """
    values = {**document.metadata, "title": document.title, "text": document.text}
    found = tuple(_text(values.get(name), name, document.where) for name in fields)
    if not any(found) and not may_be_empty:
        raise _without_fields(fields, document.where)
    return found


def _without_fields(fields: Sequence[str], where: str) -> RecordError:
    return RecordError(
        f"{where}: the document has none of the fields {', '.join(fields)}. Take it out or fill one in"
    )


def refuse_unknown(values: Mapping[str, Any], fields: Sequence[str], where: str) -> None:  # Any: JSON
    """Refuse a document with a field that is none of `fields`.

    Raises:
        RecordError: it has one.
    """
    unknown = [name for name in values if name not in fields]
    if unknown:
        raise RecordError(
            f"{where}: the document has {unknown[0]!r}, which is none of the fields {', '.join(fields)}. "
            "Name it among the fields, or take it out"
        )


def _text(value: Any, name: str, where: str) -> str | None:  # Any: whatever JSON holds
    if value is None:
        return None
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str | int | float) and not isinstance(part, bool) for part in parts):
        raise RecordError(
            f"{where}: field {name!r} is {value!r:.80}; it must be a text, or a list of texts. Correct the row"
        )
    texts = [str(part).strip() for part in parts]
    return ", ".join(text for text in texts if text) or None
