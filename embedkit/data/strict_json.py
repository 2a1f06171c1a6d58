"""JSON as its standard has it. Python's own reader and writer also take NaN, infinities and lone surrogates."""

from __future__ import annotations

import json
import math
from typing import Any


def to_strict_json(content: Any) -> str:  # Any: whatever JSON holds
    """Write one line of JSON that every reader takes: numbers that are not finite become null, lone surrogates escapes."""
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    except ValueError:
        content = _finite(content)
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    try:
        if not text.isascii():
            text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content, allow_nan=False)
    return text


def from_loose_json(text: str) -> Any:  # Any: whatever JSON holds
    """Read JSON in which NaN and infinities, as Python writes them, stand for null."""
    return json.loads(text, parse_constant=lambda _: None)


def _finite(content: Any) -> Any:  # Any: whatever JSON holds
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content
