"""A part of a file by its bytes: the documents of whole lines, numbered and named as in the whole file.

What cannot be read is handed over with its reason, and the lines after it are read all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from embedkit.data.encodings import text_stream
from embedkit.data.formats import format_of, open_compressed
from embedkit.data.reading import LineFormat, read_line_records, read_stream
from embedkit.data.records import Document, ReadOptions
from embedkit.errors import RecordError
from embedkit.storage.hashing import file_hash

Refuse = Callable[[str], None]  # takes the place and the reason of what cannot be read
_SKIPPED_BYTES = 2**20


@dataclass(frozen=True)
class FilePart:
    """Bytes `first` to `last` (not included) of a file, which begin with line `line`.

    `name` is the file as the user spelled it, which ids and messages hold, and `source` its resolved path. `digest` is the SHA-256 of
    the part's bytes. A `whole` file may be of any format; the parts of others are lines that are records by themselves.
    """

    name: str
    source: str
    first: int
    last: int
    line: int
    digest: str
    whole: bool


def line_format(path: str | Path, options: ReadOptions) -> LineFormat | None:
    """Return the format of a file whose lines are records by themselves; None where they are not."""
    form = options.format or format_of(path)
    if form == "jsonl" or (form == "txt" and options.text_unit == "line"):
        return form
    return None


def read_part(part: FilePart, options: ReadOptions, refuse: Refuse) -> Iterator[Document]:
    """Read the documents of a part.

    Raises (while iterating):
        RecordError: the file cannot be opened, or holds other bytes than the part was made of.
    """
    if part.whole and file_hash(part.source) != part.digest:
        raise _changed(part)
    try:
        with Path(part.source).open("rb") as stream:
            form = line_format(part.name, options)
            found = _whole(part, stream, options, refuse)
            if form is not None:
                found = _lines(part, stream, options, form, refuse)
            for document in found:
                yield replace(document, source=part.source, shown=part.name)
    except OSError as exc:
        raise RecordError(
            f"{part.source}: cannot be read ({exc.strerror or exc}). Every worker must see the input under this path"
        ) from exc


def _changed(part: FilePart) -> RecordError:
    return RecordError(
        f"{part.source}: bytes {part.first:,} to {part.last:,} are not those that were planned: the file was changed, or another one "
        "is there. Put the old file back, or build a new index"
    )


def _whole(part: FilePart, stream: BinaryIO, options: ReadOptions, refuse: Refuse) -> Iterator[Document]:
    if format_of(part.name) is None and options.format is None:
        options = replace(options, format="file")  # a text of another kind, which is read where folders are
    try:
        yield from read_stream(stream, part.name, options, guess_encoding=True)
    except RecordError as exc:
        refuse(str(exc))


def _lines(
    part: FilePart, stream: BinaryIO, options: ReadOptions, form: LineFormat, refuse: Refuse
) -> Iterator[Document]:
    lines = _Lines(part, stream)
    while not lines.ended:
        try:
            yield from read_line_records(
                cast("BinaryIO", lines), part.name, options, form, before=lines.number
            )
        except RecordError as exc:
            refuse(str(exc))
            lines.end_line()
    if lines.digest not in (None, part.digest):
        raise _changed(part)


class _Lines:
    """The lines of a part, counted; of one that is not compressed, hashed. Goes on after a line that was not read to its end."""

    def __init__(self, part: FilePart, stream: BinaryIO) -> None:
        self.number = part.line - 1  # lines of the file that have been read
        self.ended = False
        self._open = False  # in the middle of a line
        self._hash = None if part.whole else hashlib.sha256()
        stream.seek(part.first)
        if part.first == 0:
            opened = text_stream(open_compressed(stream, part.name))
            if self._hash is not None and opened is stream:  # a byte order mark may have been passed over
                self._hash.update(_start(stream))
            stream = opened
        self._left = None if part.whole else part.last - stream.tell()
        self._stream = stream

    @property
    def digest(self) -> str | None:
        """The SHA-256 of what was read; None where it is known already."""
        return None if self._hash is None else self._hash.hexdigest()

    def readline(self, size: int) -> bytes:
        try:
            line = self._stream.readline(size if self._left is None else min(size, self._left))
        except BaseException:
            self.ended = True  # what cannot be read here cannot be read further on
            raise
        if self._hash is not None:
            self._hash.update(line)
        if self._left is not None:
            self._left -= len(line)
        self.ended = not line
        self.number += bool(line) and not self._open
        self._open = bool(line) and not line.endswith(b"\n")
        return line

    def end_line(self) -> None:
        """Pass over the rest of a line that is too long."""
        while self._open and not self.ended:
            self.readline(_SKIPPED_BYTES)


def _start(stream: BinaryIO) -> bytes:
    """Return what of the start of a file has been read, and leave the stream where it is."""
    place = stream.tell()
    stream.seek(0)
    start = stream.read(place)
    stream.seek(place)
    return start
