"""A teacher's vectors on disk: each text is encoded once, whatever runs follow, and a kill loses one window at most.

CACHE/<teacher>/
  cache.json     format and dimension
  vectors.f32    (N, E) float32, little-endian, memory-mapped
  keys.bin       (N, 16) bytes: BLAKE2b of each row's text
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import TrainingError
from embedkit.storage.files import output_errors, write_text
from embedkit.storage.hashing import json_digest

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Floats]  # N texts -> (N, E)
FORMAT = 1
KEY_BYTES = 16
WINDOW = 512  # texts encoded, written and reported together


@dataclass(frozen=True)
class Filled:
    """`done` of `total` texts have their vectors on disk."""

    done: int
    total: int


class TeacherCache:
    """The vectors of one teacher, found by text."""

    def __init__(self, cache: str | Path, fingerprint: Mapping[str, Any], dimension: int) -> None:
        """Open or make the cache of a teacher, which its fingerprint names.

        Raises:
            TrainingError: the cache is of another format or dimension, or its description is damaged.
            OutputError: the folder cannot be written.
        """
        self.folder = Path(cache) / f"teacher-{json_digest(fingerprint)[:16]}"
        self.dimension = dimension
        self._keys_path, self._vectors_path = self.folder / "keys.bin", self.folder / "vectors.f32"
        with output_errors(self.folder, "Choose another --cache"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_description()
            self._keys_path.touch()
            self._vectors_path.touch()

    def _check_description(self) -> None:
        path = self.folder / "cache.json"
        wanted = {"format": FORMAT, "dimension": self.dimension}
        if not path.exists():
            write_text(path, json.dumps(wanted) + "\n")
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise TrainingError(
                f"{path}: cannot be read ({exc}). Remove the folder; the vectors are made again"
            ) from exc
        if found != wanted:
            raise TrainingError(
                f"{path}: says {found}; this teacher needs {wanted}. Remove the folder, or choose another --cache"
            )

    def __len__(self) -> int:
        """Count the rows that are whole in both files: a kill may have cut the last ones short."""
        vectors = self._vectors_path.stat().st_size // (4 * self.dimension)
        return min(vectors, self._keys_path.stat().st_size // KEY_BYTES)

    def fill(self, texts: Sequence[str], embed: Embed) -> Iterator[Filled]:
        """Encode the texts that are not here yet, a window at a time, and report after each.

        Raises:
            TrainingError: the teacher returns vectors of another shape, or not finite ones.
            OutputError: the disk is full.
        """
        here = set(self._keys().tolist())
        wanted = dict.fromkeys(texts)
        missing = [text for text in wanted if _key(text) not in here]
        yield Filled(len(wanted) - len(missing), len(wanted))
        for start in range(0, len(missing), WINDOW):
            window = missing[start : start + WINDOW]
            self._append(window, embed(window))
            yield Filled(len(wanted) - len(missing) + start + len(window), len(wanted))

    def _append(self, texts: Sequence[str], vectors: Floats) -> None:
        if vectors.shape != (len(texts), self.dimension):
            raise TrainingError(
                f"the teacher gave vectors of shape {vectors.shape} for {len(texts)} texts; its cache holds {self.dimension} "
                "dimensions. Is it the same model?"
            )
        wrong = ~np.isfinite(vectors).all(axis=1)
        if wrong.any():
            raise TrainingError(
                f"the teacher's vector of {texts[int(np.argmax(wrong))][:60]!r} holds NaN or infinity; "
                f"{int(wrong.sum())} of {len(texts)} do. Check the teacher with: embedkit encode"
            )
        rows = len(self)
        keys = b"".join(_key(text) for text in texts)
        with output_errors(self.folder, "Make room and run the same command again; what is encoded is kept"):
            # Vectors first: a row counts only once its key is there too.
            _append_bytes(self._vectors_path, rows * 4 * self.dimension, vectors.astype("<f4").tobytes())
            _append_bytes(self._keys_path, rows * KEY_BYTES, keys)

    def _keys(self) -> NDArray[np.void]:
        return np.fromfile(self._keys_path, dtype=f"V{KEY_BYTES}", count=len(self))

    def rows(self, texts: Sequence[str]) -> Ints:
        """Find each text's row: (N,).

        Raises:
            KeyError: a text has no vector here.
        """
        number = {key: row for row, key in enumerate(self._keys().tolist())}
        return np.array([number[_key(text)] for text in texts], dtype=np.int64)

    def vectors(self) -> Floats:
        """Map all vectors into memory: (rows, E)."""
        return np.memmap(self._vectors_path, dtype="<f4", mode="r", shape=(len(self), self.dimension))


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=KEY_BYTES).digest()


def _append_bytes(path: Path, offset: int, content: bytes) -> None:
    """Write at `offset`, which drops what a kill left half written behind it."""
    with path.open("r+b") as stream:
        stream.truncate(offset)
        stream.seek(offset)
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
