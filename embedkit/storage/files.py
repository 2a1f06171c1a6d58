"""Write result files whole or not at all, and tell data files apart by hash."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from embedkit.errors import OutputError, RecordError


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file so that a reader finds the old or the new one, never a part.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    path = Path(path)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with beside.open("w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as exc:
        raise OutputError(
            f"{path}: cannot be written ({exc.strerror or exc}). Check that its folder exists and is yours"
        ) from exc


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
