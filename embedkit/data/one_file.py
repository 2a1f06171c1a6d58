"""Read exactly one file, plain or compressed: its lines, or its rows with named columns."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from embedkit.data.formats import (
    Format,
    format_of,
    named_rows,
    open_compressed,
    plain_suffix,
    read_lines,
    with_places,
)
from embedkit.data.paths import STDIN, expand_inputs
from embedkit.data.records import ReadOptions
from embedkit.errors import RecordError


def open_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Read one file (plain, `.gz`, `.zst`, or `-`) as (line number, text without its line end), blank lines too.

    Raises (while iterating):
        RecordError: there is no such file, it is not one file, or a line cannot be read; the message names it.
    """
    if str(path) == STDIN:
        yield from read_lines(sys.stdin.buffer, "stdin", ReadOptions.max_line_bytes)
        return
    with _open_one(path, "txt") as (stream, source):
        yield from read_lines(stream, source, ReadOptions.max_line_bytes)


def open_rows(path: str | Path) -> Iterator[tuple[str, Mapping[str, Any]]]:  # Any: whatever the file holds
    """Read one file of rows with named columns as (place, columns).

    Raises (while iterating):
        RecordError: as `open_lines`, or the file is of another kind.
    """
    form, limit = format_of(path), ReadOptions.max_line_bytes
    with _open_one(path, None) as (stream, source):
        match form:
            case "jsonl" | "json" | "csv" | "tsv" | "parquet":
                rows = named_rows(stream, source, form, max_line_bytes=limit)
            case _:
                raise RecordError(
                    f"{path}: the ending is {plain_suffix(path)!r}; rows with named columns are read from "
                    ".tsv .csv .jsonl .json .parquet. Convert the file"
                )
        for where, _, row in with_places(rows, source):
            yield where, row


@contextmanager
def _open_one(path: str | Path, explicit_format: Format | None) -> Iterator[tuple[BinaryIO, str]]:
    """Open exactly one file, decompressed, with its name for messages."""
    if Path(path).is_dir():
        raise RecordError(f"{path}: a folder; this must be one file. Name the file in it")
    found, *others = expand_inputs([str(path)], explicit_format=explicit_format)
    if others:
        raise RecordError(f"{path}: the pattern matches {1 + len(others)} files; this must be one. Name it")
    source = found.as_posix()
    try:
        with found.open("rb") as stream:
            yield open_compressed(stream, source), source
    except OSError as exc:
        raise RecordError(f"{path}: cannot be read ({exc.strerror or exc}). Check its permissions") from exc
