"""Rows of training files as they stand in them: JSON lines, CSV, TSV, Parquet, plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from embedkit.data.formats import (
    format_of,
    named_rows,
    open_compressed,
    read_lines,
    read_whole,
    with_places,
)
from embedkit.data.paths import STDIN, expand_inputs
from embedkit.data.records import ReadOptions
from embedkit.errors import RecordError

MAX_LINE_BYTES = ReadOptions.max_line_bytes
Row = Mapping[str, Any]  # Any: whatever JSON holds


def read_rows(source: str, read: ReadOptions | None = None) -> Iterator[tuple[str, Row]]:
    """Read the rows of a file, folder or glob, each with its place; a line of plain text is a row with a `text`.

    Of `read` the delimiter and the header count.

    Raises (while iterating):
        RecordError: there is no such file, it is standard input, or it cannot be read.
    """
    if source == STDIN:
        raise RecordError(
            "the rows come from a pipe ('-'); work that can be resumed reads files. Write them to a file first"
        )
    for path in expand_inputs([source]):
        name = path.as_posix()
        try:
            with path.open("rb") as file:
                for where, _, row in with_places(_rows_of(file, name, read or ReadOptions()), name):
                    yield where, row
        except OSError as exc:
            raise RecordError(
                f"{name}: cannot be read ({exc.strerror or exc}). Check its permissions"
            ) from exc


def _rows_of(file: BinaryIO, name: str, read: ReadOptions) -> Iterator[tuple[int, Row]]:
    stream, form = open_compressed(file, name), format_of(name)
    match form:
        case "jsonl" | "json" | "csv" | "tsv" | "parquet":
            return named_rows(
                stream,
                name,
                form,
                max_line_bytes=MAX_LINE_BYTES,
                delimiter=read.delimiter,
                header=read.header,
            )
        case "txt":
            lines = read_lines(stream, name, MAX_LINE_BYTES)
            return ((number, {"text": line}) for number, line in lines if line.strip())
        case _:
            return iter([(1, {"text": read_whole(stream, name, MAX_LINE_BYTES)})])
