"""SHA-256 of a model's weight files together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from embedkit.storage.hashing import file_digest


def weights_digest(files: Iterable[Path]) -> str:
    """Return the SHA-256, in hexadecimal, of the files' own SHA-256s one after another."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(bytes.fromhex(file_digest(file)))
    return whole.hexdigest()
