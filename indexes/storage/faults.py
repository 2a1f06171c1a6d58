"""What the system and SQLite raise about the files of an index, told as an IndexFileError that says what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedkit.errors import IndexFileError
from embedkit.storage.files import FULL


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the system raises about a write into an IndexFileError that says what to do."""
    try:
        yield
    except OSError as exc:
        if isinstance(exc, FileNotFoundError):
            raise
        advice = "Check the permissions of the folder and the disk"
        if exc.errno in FULL:
            advice = "Make room and run the same command again; nothing that was committed is lost"
        raise IndexFileError(f"{folder}: cannot be written ({exc.strerror}). {advice}") from exc


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what SQLite raises about a file into an IndexFileError that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as exc:
        text = str(exc)
        if "full" in text:
            advice = "The disk is full: make room and run the same command again; nothing that was committed is lost"
        elif "readonly" in text or "read-only" in text:
            advice = "The index is read-only: check the permissions of its folder and files"
        elif "locked" in text or "busy" in text:
            advice = "Another process holds the database: run the command again when it has ended"
        else:
            advice = f"Check the permissions and the disk, or run: embedkit index verify {path.parent}"
        raise IndexFileError(f"{path}: SQLite says {text!r}. {advice}") from exc
    except sqlite3.DatabaseError as exc:
        raise IndexFileError(
            f"{path}: SQLite says {str(exc)!r}: the database is damaged. "
            f"Run: embedkit index verify {path.parent}"
        ) from exc
