"""Reading the files of a folder as documents, together with what tells later whether they have changed."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from embedkit.data.records import Document
from embedkit.data.walking import FileEntry
from embedkit.data.whole_file import read_whole_file
from embedkit.errors import EmbedkitError
from embedkit.pipelines.grep.changes import settled
from embedkit.pipelines.grep.home import Home
from embedkit.pipelines.grep.state import FileRead, joined


@dataclass(frozen=True)
class FileReading:
    """A file as it was read. `document` is None where it could not be, or where its bytes are those known before."""

    file: FileRead
    document: Document | None = None


def read_file(home: Home, folder: str, name: str, known: bytes | None) -> FileReading | None:
    """Read a file; `known` is the hash of what it held before. None where it is gone.

    Its id is its path in the folder, and so is its title where its text has none. Size and time are those from before the
    reading: if it changes meanwhile, the next look sees that.
    """
    path = home.root / folder / name
    shown = joined(folder, name)
    try:
        with path.open("rb") as stream:
            now, status = time.time_ns(), os.fstat(stream.fileno())
            limit = home.walking.most_bytes(name)
            raw = stream.read() if limit is None or status.st_size <= limit else None
    except FileNotFoundError:
        return None
    except OSError as exc:
        file = FileRead(
            folder, name, *_looked_at(path), b"", f"{path}: cannot be read ({exc.strerror or exc})"
        )
        return FileReading(file)
    file = FileRead(folder, name, status.st_size, settled(status.st_mtime_ns, now), b"")
    if raw is None:
        return FileReading(
            replace(file, problem=f"{path}: the file has grown to {status.st_size / 1e6:,.1f} MB")
        )
    file = replace(file, digest=hashlib.blake2b(raw, digest_size=16).digest())
    if file.digest == known:
        return FileReading(file)
    try:
        document = read_whole_file(io.BytesIO(raw), shown, max(1, len(raw)), guess=True)
    except EmbedkitError as exc:  # RecordError, or MissingExtraError of a format
        return FileReading(replace(file, problem=str(exc).replace(shown, str(path), 1)))
    title = document.title
    if title == PurePosixPath(shown).stem:
        title = shown
    file = replace(file, encoding=document.encoding)
    return FileReading(file, replace(document, title=title, source=path.as_posix(), shown=str(path)))


def _looked_at(path: Path) -> tuple[int, int]:
    """Return size and time of a file that may not be read."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


class FileBatch:
    """What becomes of some files: those whose documents are in `read` are in the order in which the index takes them."""

    def __init__(
        self, home: Home, batch: Sequence[tuple[str, FileEntry]], known: Mapping[str, bytes]
    ) -> None:
        self.home, self.batch, self.known = home, batch, known
        self.read: list[FileRead] = []
        self.numbers: list[int] = []  # of these in the batch
        self.failed: list[FileRead] = []
        self.same: list[tuple[str, FileEntry]] = []
        self.vanished: list[tuple[str, str]] = []

    def documents(self) -> Iterator[Document]:
        for number, (folder, entry) in enumerate(self.batch, 1):
            reading = read_file(self.home, folder, entry.name, self.known.get(joined(folder, entry.name)))
            if reading is None:
                self.vanished.append((folder, entry.name))
            elif reading.document is not None:
                self.read.append(reading.file)
                self.numbers.append(number)
                yield reading.document
            elif reading.file.problem:
                self.failed.append(reading.file)
            else:
                file = reading.file
                self.same.append((folder, FileEntry(file.name, file.num_bytes, file.mtime_ns)))

    def begun_before(self, count: int) -> int:
        """Return how many files of the batch are done once `count` documents are committed."""
        return self.numbers[count - 1] if count else 0
