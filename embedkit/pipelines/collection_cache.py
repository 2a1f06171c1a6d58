"""Where encoded collections are kept: a folder each, named by what the vectors depend on, and a note when it is whole.

`CACHE/collections/scifact-3f1c09d2a4be-77aa01c45e90.index` is the index of a collection (hash of the file) by an encoder
(hash of its fingerprint); the same name with `.json` is written last and says that nothing is missing. A collection or an
encoder that changed has another name, so nothing stale can be read. All of it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedkit.storage.files import write_text
from embedkit.storage.hashing import file_hash

# Hexadecimal digits of a name: 48 bits, and the whole hashes stand in the note beside the index.
DIGITS = 12


def digest(content: Mapping[str, Any]) -> str:  # Any: whatever JSON holds
    """Return the SHA-256 of a mapping of JSON values, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class CachedCollection:
    """One collection by one encoder in a cache. `corpus_hash` is the file's SHA-256, `encoder_hash` that of the encoder."""

    cache: Path
    name: str
    corpus_hash: str
    encoder_hash: str

    @classmethod
    def of(
        cls, cache: Path, name: str, *, corpus: str | Path, encoder: Mapping[str, Any]
    ) -> CachedCollection:  # Any: whatever JSON holds
        """Name the place of a corpus file encoded by `encoder`, which must name all that the vectors depend on.

        Raises:
            RecordError: the file cannot be read.
        """
        return cls(cache, name, file_hash(corpus), digest(encoder))

    @property
    def path(self) -> Path:
        name = f"{self.name}-{self.corpus_hash[:DIGITS]}-{self.encoder_hash[:DIGITS]}.index"
        return self.cache / "collections" / name

    @property
    def _note(self) -> Path:
        return self.path.with_suffix(".json")

    def _content(self) -> str:
        return json.dumps({"corpus": self.corpus_hash, "encoder": self.encoder_hash}) + "\n"

    def is_whole(self) -> bool:
        """Say whether all documents are in the index, so that it need not be compared with the file."""
        try:
            return self._note.read_text(encoding="utf-8") == self._content()
        except OSError:
            return False

    def mark_whole(self) -> None:
        """Note that all documents are in the index.

        Raises:
            OutputError: the note cannot be written.
        """
        write_text(self._note, self._content())

    def earlier(self) -> tuple[Path, ...]:
        """Return what is cached of other states of the collection of this name by the same encoder."""
        pattern = f"{self.name}-{'?' * DIGITS}-{self.encoder_hash[:DIGITS]}.index"
        return tuple(path for path in sorted(self.path.parent.glob(pattern)) if path != self.path)
