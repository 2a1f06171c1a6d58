"""Telling contents apart by their hash: of files, and of whatever JSON holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from embedkit.errors import RecordError


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        RecordError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise RecordError(f"{path}: cannot be read ({exc.strerror or exc}). Check the path") from exc


def json_digest(content: Any) -> str:  # Any: whatever JSON holds
    """Return the SHA-256 of JSON content, in hexadecimal, whatever the order of its keys."""
    return hashlib.sha256(canonical_json(content).encode("utf-8")).hexdigest()


def canonical_json(content: Any) -> str:  # Any: whatever JSON holds
    """Write JSON in the one form that hashes and comparisons use."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
