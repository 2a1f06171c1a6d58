"""Write files and folders whole or not at all, and tell files apart by hash."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


@contextmanager
def new_folder(target: str | Path) -> Iterator[Path]:
    """Give a folder to write into, which takes its final name only when everything is on disk.

    Raises:
        OutputError: the target exists and is not an empty folder, or the disk is full.
    """
    target = Path(target)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(f"{target}: already exists. Choose another name, or remove it first")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield draft
            for path in [*draft.rglob("*"), draft]:
                sync(path)
            draft.chmod(0o755)  # mkdtemp's is for the owner alone
            if target.exists():
                target.rmdir()
            draft.rename(target)
            sync(target.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as exc:
        raise OutputError(
            f"{target}: cannot be written ({exc.strerror or exc}). Nothing was left there"
        ) from exc


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def canonical_json(content: Any) -> str:  # Any: whatever JSON holds
    """Write JSON in the one form that hashes and comparisons use."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file so that a reader sees the old one or the new one, whole."""
    draft = path.with_name(path.name + ".draft")
    with draft.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
