"""The metadata of documents as JSON text: what may be stored, and how what earlier versions stored is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from embedkit.data.records import Document
from embedkit.data.strict_json import from_loose_json, to_strict_json
from embedkit.errors import RecordError

Metadata = dict[str, Any]  # Any: whatever JSON holds
_STORED = "text, numbers, true, false, null, dates, and lists and objects of these"

# What writes answers takes 254 (orjson), and an answer has some levels of its own.
MAX_DEPTH = 200


def metadata_json(document: Document) -> str:
    """Write a document's metadata as strict JSON: dates and times become ISO 8601 text, decimals numbers.

    Raises:
        RecordError: a field holds what JSON has no value for; the message names the place and the field.
    """
    if not document.metadata:
        return "{}"
    try:
        text = json.dumps(
            document.metadata, ensure_ascii=False, sort_keys=True, allow_nan=False, default=_as_json
        )
        if not text.isascii():
            text.encode("utf-8")
    except (TypeError, ValueError) as exc:
        where = document.where or f"document {document.doc_id!r}"
        problem = next(_problems(document.metadata, ""), f"the metadata cannot be written as JSON ({exc})")
        raise RecordError(f"{where}: {problem}") from exc
    except RecursionError as exc:
        raise _too_deep(document) from exc
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(document.metadata):
        raise _too_deep(document)
    return text


def _is_deep(content: Any) -> bool:  # Any: whatever the metadata hold
    """Say whether lists and objects lie in one another more than MAX_DEPTH deep."""
    level = [content]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, Mapping) else each for each in level]
        level = [each for some in inner for each in some if isinstance(each, Mapping | list | tuple)]
    return bool(level)


def _too_deep(document: Document) -> RecordError:
    where = document.where or f"document {document.doc_id!r}"
    return RecordError(
        f"{where}: lists and objects of the metadata lie in one another more than {MAX_DEPTH} deep. Flatten them"
    )


def read_metadata(text: str) -> Metadata:
    """Read stored metadata; a NaN or an infinity that an earlier version stored is None."""
    return from_loose_json(text) if text != "{}" else {}


def strict_json(text: str) -> str:
    """Write stored metadata again as strict JSON; damaged text stays as it is. SQLite calls it where it cannot read."""
    try:
        return to_strict_json(read_metadata(text))
    except ValueError:
        return text


def not_finite(text: str) -> str:
    """Name the fields of stored metadata that are not finite, as `'year' is NaN`."""
    return ", ".join(
        f"{field!r} is {_spelt(value)}"
        for field, value in _values(json.loads(text), "")
        if isinstance(value, float) and not math.isfinite(value)
    )


def _as_json(value: object) -> str | int | float:
    """Stand in for a value that JSON has no kind for."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent
        return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)
    raise TypeError(type(value).__name__)


def _problems(metadata: Mapping[str, Any], name: str) -> Iterator[str]:
    for field, value in _values(metadata, name):
        where = f"the field {field!r}"
        surrogate = re.search("[\ud800-\udfff]", f"{field}{value}" if isinstance(value, str) else field)
        if surrogate is not None:
            yield (
                f"{where} holds the lone surrogate U+{ord(surrogate[0]):04X}, which is not a character. "
                "Write the text again as UTF-8"
            )
        if isinstance(value, Decimal):
            value = float(value)
        if isinstance(value, float) and not math.isfinite(value):
            beyond = "" if math.isnan(value) else ", or a number beyond 1.8e308"
            yield f"{where} is {_spelt(value)}{beyond}; JSON has finite numbers only. Write null, a number or a text"
        elif value is not None and not isinstance(value, str | bool | int | float | datetime | date | time):
            kind = type(value).__name__
            yield f"{where} is of the type {kind}; metadata holds {_STORED}. Convert the field or leave it out"


def _values(content: Any, name: str) -> Iterator[tuple[str, Any]]:  # Any: whatever the metadata hold
    """Yield every value that is no container, with its field: `author.name`, `tags[0]`."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _values(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from _values(value, f"{name}[{number}]")
    else:
        yield name, content


def _spelt(value: float) -> str:
    return json.dumps(value)  # NaN, Infinity, -Infinity
