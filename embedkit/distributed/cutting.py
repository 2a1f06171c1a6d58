"""Cutting files into shards of about equal size, in one pass that also hashes them and counts their lines.

Files of lines that are records by themselves are cut at the start of a line; any other, and a compressed one, stays whole. The parts
keep the order of the input, so that shard after shard holds what one index would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from embedkit.data.encodings import ends_lines_with_lf
from embedkit.data.formats import COMPRESSED_SUFFIXES
from embedkit.data.parts import FilePart, line_format
from embedkit.data.records import ReadOptions
from embedkit.distributed.plan import InputFile
from embedkit.errors import RecordError

# A compressed file weighs as much as the texts in it: text in gzip or zstd takes about a third.
UNFOLDED = 3
_BLOCK_BYTES = 2**22


@dataclass(frozen=True)
class Cut:
    """The files of an input with their hashes, and the parts of each shard; no shard is empty."""

    inputs: Sequence[InputFile]
    shards: Sequence[Sequence[FilePart]]


def cut(paths: Sequence[Path], options: ReadOptions, shards: int) -> Cut:
    """Cut files into up to so many shards; reads all of them.

    Raises:
        RecordError: a file cannot be read, or there is nothing to cut.
    """
    weights = [_weight(path) for path in paths]
    total = sum(weights)
    if not total:
        raise RecordError(
            "the input has no bytes: there is nothing to cut into shards. Name files with texts"
        )
    inputs: list[InputFile] = []
    parts: list[list[FilePart]] = [[] for _ in range(shards)]
    before = 0  # weight of the files so far
    for path, weight in zip(paths, weights, strict=True):
        borders = [-(-number * total // shards) - before for number in range(1, shards)]
        whole = _stays_whole(path, options)
        inside = [] if whole else sorted({border for border in borders if 0 < border < weight})
        found, file = _scan(path, inside, whole=whole)
        inputs.append(file)
        for part in found:
            middle = before + weight // 2 if whole else before + part.first
            shard = min(shards - 1, middle * shards // total)
            parts[shard].append(part)
        before += weight
    return Cut(inputs, [each for each in parts if each])


def _weight(path: Path) -> int:
    size = _status(path)[0]
    return size * UNFOLDED if path.suffix.lower() in COMPRESSED_SUFFIXES else size


def _stays_whole(path: Path, options: ReadOptions) -> bool:
    if line_format(path, options) is None or path.suffix.lower() in COMPRESSED_SUFFIXES:
        return True
    with path.open("rb") as stream:
        return not ends_lines_with_lf(stream)


def _status(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as exc:
        raise RecordError(f"{path}: cannot be read ({exc.strerror or exc}). Check the path") from exc
    return status.st_size, status.st_mtime_ns


def _scan(path: Path, borders: Sequence[int], *, whole: bool) -> tuple[list[FilePart], InputFile]:
    """Read a file once: hash it and its parts, which begin with the first line at or after each border."""
    size, changed = _status(path)
    name, source = path.as_posix(), path.resolve().as_posix()
    found: list[FilePart] = []
    of_file, of_part = hashlib.sha256(), hashlib.sha256()
    first, line, lines = 0, 1, 0
    try:
        with path.open("rb") as stream:
            for place, piece, ends in _pieces(stream, borders):
                of_file.update(piece)
                of_part.update(piece)
                lines += piece.count(b"\n")
                if ends:
                    last = place + len(piece)
                    found.append(FilePart(name, source, first, last, line, of_part.hexdigest(), whole))
                    first, line, of_part = last, lines + 1, hashlib.sha256()
            last = stream.tell()
    except OSError as exc:
        raise RecordError(f"{path}: cannot be read ({exc.strerror or exc}). Check its permissions") from exc
    if last != size:
        raise RecordError(f"{path}: grew or shrank while it was read. Wait until nobody writes to it")
    if last > first:
        found.append(FilePart(name, source, first, last, line, of_part.hexdigest(), whole))
    return found, InputFile(name, source, size, of_file.hexdigest(), changed)


def _pieces(stream: BinaryIO, borders: Sequence[int]) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (place, bytes, whether a part ends with them) of a file."""
    waiting = list(reversed(borders))
    place = 0
    while block := stream.read(_BLOCK_BYTES):
        start = 0
        while waiting:
            # A line that begins at the border itself belongs behind it: the line end before it is what is looked for.
            end = block.find(b"\n", max(start, waiting[-1] - 1 - place))
            if end < 0:
                break
            yield place + start, block[start : end + 1], True
            start = end + 1
            while waiting and waiting[-1] <= place + start:
                waiting.pop()
        if start < len(block):
            yield place + start, block[start:], False
        place += len(block)
