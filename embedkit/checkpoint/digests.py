"""SHA-256 of weight files, remembered in the cache: hashing a gigabyte takes more than half a second."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from embedkit.storage.cache import keep_note, read_note

# A file may be changed again within one tick of its file system's clock: what is younger is not remembered.
SETTLED_SECONDS = 2.0


def weights_digest(files: Iterable[Path]) -> str:
    """Return the SHA-256, in hexadecimal, of the files' own SHA-256s one after another."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(bytes.fromhex(file_digest(file)))
    return whole.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, from the cache where the very same file was hashed before.

    A file counts as the same while path, device, inode, size and the times of its last change are: the change time
    (ctime) is the system's own, which no program sets back.
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
