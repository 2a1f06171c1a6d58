"""Telling contents apart by their hash: of files, and of whatever JSON holds."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from embedkit.errors import RecordError
from embedkit.storage.cache import keep_note, read_note

# A file may be changed again within one tick of its file system's clock: what is younger is not remembered.
SETTLED_SECONDS = 2.0


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, from the cache where the very same file was hashed before.

    Hashing a gigabyte takes more than half a second. A file counts as the same while path, device, inode, size and the
    times of its last change are: the change time (ctime) is the system's own, which no program sets back.
    """
    status = path.stat()
    about = (
        path.absolute(),
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
    note = f"digests/{hashlib.sha256(os.fsencode(repr(about))).hexdigest()[:24]}"
    known = read_note(note)
    if known is not None and len(known) == 64:
        return known
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS:
        keep_note(note, found)
    return found


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal, as `file_digest` does.

    Raises:
        RecordError: the file cannot be read.
    """
    try:
        return file_digest(Path(path))
    except OSError as exc:
        raise RecordError(f"{path}: cannot be read ({exc.strerror or exc}). Check the path") from exc


def json_digest(content: Any) -> str:  # Any: whatever JSON holds
    """Return the SHA-256 of JSON content, in hexadecimal, whatever the order of its keys."""
    return hashlib.sha256(canonical_json(content).encode("utf-8")).hexdigest()


def canonical_json(content: Any) -> str:  # Any: whatever JSON holds
    """Write JSON in the one form that hashes and comparisons use."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
