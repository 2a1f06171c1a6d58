"""Rows of training files as they stand in them: JSON lines, CSV, TSV, Parquet, plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from embedkit.data.formats import (
    format_of,
    named_rows,
    open_compressed,
    read_lines,
    read_whole,
)
from embedkit.data.paths import expand_inputs
from embedkit.data.records import ReadOptions

MAX_LINE_BYTES = ReadOptions.max_line_bytes
Row = Mapping[str, Any]  # Any: whatever JSON holds


def read_rows(source: str, read: ReadOptions | None = None) -> Iterator[tuple[str, Row]]:
    """Read the rows of a file, folder or glob, each with its place; a line of plain text is a row with a `text`.

    Of `read` the delimiter and the header count.

    Raises:
        RecordError: there is no such file, or it cannot be read.
    """
    read = read or ReadOptions()
    for path in expand_inputs([source]):
        name = path.as_posix()
        with path.open("rb") as file:
            stream, form = open_compressed(file, name), format_of(path)
            match form:
                case "jsonl" | "json" | "csv" | "tsv" | "parquet":
                    rows = named_rows(
                        stream,
                        name,
                        form,
                        max_line_bytes=MAX_LINE_BYTES,
                        delimiter=read.delimiter,
                        header=read.header,
                    )
                case "txt":
                    lines = read_lines(stream, name, MAX_LINE_BYTES)
                    rows = ((number, {"text": line}) for number, line in lines if line.strip())
                case _:
                    rows = iter([(1, {"text": read_whole(stream, name, MAX_LINE_BYTES)})])
            for number, row in rows:
                yield f"{name}:{number}", row
