"""The file formats that records are read from: bytes in, numbered lines and rows out.

Nothing here knows what a document is; `embedkit.data.reading` makes them of the rows.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from embedkit.data.documents.kinds import DOCUMENTS, is_document
from embedkit.data.encodings import DAMAGED, UNREADABLE, decode, decode_legacy, text_stream, unreadable
from embedkit.data.json_arrays import array_rows
from embedkit.data.separated import separated_rows
from embedkit.errors import RecordError
from embedkit.extras import load_extra

RowFormat = Literal["jsonl", "json", "csv", "tsv", "parquet"]
Format = Literal["txt", "jsonl", "json", "csv", "tsv", "parquet", "file"]
Row = tuple[int, Mapping[str, Any]]  # line number, fields

LINE_SUFFIXES: dict[str, Format] = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
WHOLE_FILE_SUFFIXES = (".md", ".markdown", ".rst", ".html", ".htm")
COMPRESSED_SUFFIXES = (".gz", ".zst")


def known_endings() -> str:
    return " ".join((*LINE_SUFFIXES, *WHOLE_FILE_SUFFIXES, *DOCUMENTS)) + " (each also with .gz or .zst)"


def plain_suffix(path: str | Path) -> str:
    """Return the lower-case ending that tells the format, with .gz and .zst taken off."""
    path = Path(path)
    if path.suffix.lower() in COMPRESSED_SUFFIXES:
        path = path.with_suffix("")
    return path.suffix.lower()


def format_of(path: str | Path) -> Format | None:
    """Tell the format by a file's ending, or None where the ending is not known."""
    suffix = plain_suffix(path)
    return "file" if suffix in WHOLE_FILE_SUFFIXES or is_document(suffix) else LINE_SUFFIXES.get(suffix)


def open_compressed(stream: BinaryIO, source: str) -> BinaryIO:
    """Put the decompressor before a stream that its name's ending asks for."""
    ending = Path(source).suffix.lower()
    if ending == ".gz":
        return cast("BinaryIO", gzip.GzipFile(fileobj=stream))
    if ending == ".zst":
        zstd = load_extra("zstd", purpose=f"reading {source}")
        return cast("BinaryIO", zstd.open_reader(stream))
    return stream


def sniff(stream: BinaryIO, max_line_bytes: int, source: str = "stdin") -> tuple[BinaryIO, Format]:
    """Tell JSON lines and lists from plain text by the first line of a pipe, without losing it.

    Raises:
        RecordError: it cannot be read.
    """
    try:
        stream = text_stream(stream)
        first = stream.readline(max_line_bytes + 1)
    except UNREADABLE as exc:
        raise unreadable(f"{source}:1", exc) from exc
    form: Format = "txt"
    try:
        value = json.loads(first)
        form = "jsonl" if isinstance(value, dict) else form
        form = "json" if isinstance(value, list) and value and isinstance(value[0], dict) else form
    except (ValueError, RecursionError):
        form = "json" if first.strip() == b"[" else form
    return cast("BinaryIO", _Pushback(first, stream)), form


class _Pushback:
    """A binary stream with its first line put back in front."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first = io.BytesIO(first)
        self._rest = rest

    def readline(self, size: int) -> bytes:
        return self._first.readline(size) or self._rest.readline(size)

    def read(self, size: int) -> bytes:
        first = self._first.read(size)
        return first + self._rest.read(size - len(first))


def read_lines(
    stream: BinaryIO, source: str, max_line_bytes: int, *, before: int = 0
) -> Iterator[tuple[int, str]]:
    """Yield (line number, text without its line end), refusing lines that are too long or no text.

    `before` lines of the file came before the stream: its first one has the next number.
    """
    number = before
    while True:
        try:
            stream = stream if number else text_stream(stream)
            raw = stream.readline(max_line_bytes + 1)
        except UNREADABLE as exc:
            raise unreadable(f"{source}:{number + 1}", exc) from exc
        if not raw:
            return
        number += 1
        if len(raw) > max_line_bytes:
            raise RecordError(
                f"{source}:{number}: the line is longer than {max_line_bytes:,} bytes, which one text may have. "
                "Split it into lines",
                ", or raise the limit with --max-line-bytes",
            )
        if b"\0" in raw:
            raise RecordError(_no_text(f"{source}:{number}", f"column {raw.index(0) + 1}"))
        try:
            line = raw.rstrip(b"\r\n").decode("utf-8")
        except UnicodeDecodeError as exc:
            raise RecordError(
                f"{source}:{number}: byte 0x{raw[exc.start]:02x} at column {exc.start + 1} is not UTF-8. "
                "Convert the file, for example with: iconv -f latin1 -t utf-8"
            ) from exc
        del raw  # a line may be a book
        yield number, line


def read_whole(stream: BinaryIO, source: str, max_line_bytes: int) -> bytes:
    """Read a whole file as one document; it may have as many bytes as four lines."""
    limit = 4 * max_line_bytes
    try:
        raw = stream.read(limit + 1)
    except DAMAGED as exc:
        raise unreadable(source, exc) from exc
    if len(raw) > limit:
        raise RecordError(
            f"{source}: the file is larger than {limit:,} bytes, which one document may have. Split it",
            ", or raise the limit with --max-line-bytes",
        )
    return raw


def decode_whole(raw: bytes, source: str, *, guess: bool = False) -> tuple[str, str]:
    """Decode a whole file, without a byte-order mark at its start; return the text and its encoding.

    With `guess` an encoding that is neither UTF-8 nor UTF-16 is guessed.
    """
    try:
        text, encoding = decode(raw)
    except UnicodeDecodeError as exc:
        guessed = decode_legacy(raw) if guess else None
        if guessed is None:
            raise RecordError(
                f"{source}: byte 0x{raw[exc.start]:02x} at offset {exc.start} is not UTF-8. "
                "Convert the file, for example with: iconv -f latin1 -t utf-8"
            ) from exc
        return guessed
    if "\0" in text:
        raise RecordError(_no_text(source, f"character {text.index(chr(0)) + 1}"))
    return text, encoding


def _no_text(where: str, place: str) -> str:
    return (
        f"{where}: a NUL byte at {place}, which no text has. If it is UTF-16 without a byte order mark, convert it with: "
        "iconv -f utf-16le -t utf-8"
    )


def named_rows(
    stream: BinaryIO,
    source: str,
    form: RowFormat,
    *,
    max_line_bytes: int,
    delimiter: str | None = None,
    header: bool = True,
) -> Iterator[Row]:
    """Read rows with named columns in any of the formats that have them; see `separated_rows` for the last two options."""
    match form:
        case "jsonl":
            return json_rows(stream, source, max_line_bytes)
        case "json":
            return array_rows(stream, source, max_line_bytes)
        case "csv" | "tsv":
            lines = read_lines(stream, source, max_line_bytes)
            return separated_rows(
                lines, source, form, max_field_chars=max_line_bytes, delimiter=delimiter, header=header
            )
        case "parquet":
            return parquet_rows(stream, source)


def with_places(rows: Iterator[Row], source: str) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """Put before each row what it is called in ids and messages, which no other row of the file is: "a.json:7".

    Many programs write a whole JSON list on one line; its second row is "a.json:1.2".
    """
    before, several = 0, 1
    for number, row in rows:
        several = several + 1 if number == before else 1
        before = number
        yield f"{source}:{number}" + (f".{several}" if several > 1 else ""), number, row


def json_rows(stream: BinaryIO, source: str, max_line_bytes: int, *, before: int = 0) -> Iterator[Row]:
    """Read JSON lines; blank ones are passed over. `before` as in `read_lines`."""
    for number, line in read_lines(stream, source, max_line_bytes, before=before):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as exc:
            start = line if len(line) <= 60 else line[:60] + "…"
            raise RecordError(
                f"{source}:{number}: not JSON ({exc}); the line starts {start!r}. Each line must be one JSON object"
            ) from exc
        if not isinstance(row, dict):
            raise RecordError(
                f"{source}:{number}: a JSON {type(row).__name__}; each line must be one JSON object. Write it as "
                '{"text": …}',
                ", or pass --format txt to take lines as they are",
            )
        yield number, row


def parquet_rows(stream: BinaryIO, source: str) -> Iterator[Row]:
    """Read the rows of a Parquet file, numbered from 1."""
    parquet = load_extra("parquet", purpose=f"reading {source}")
    try:
        yield from enumerate(parquet.read_rows(stream), 1)
    except (*DAMAGED, ValueError, OverflowError) as exc:  # the last: a date beyond the year 9999
        raise RecordError(
            f"{source}: cannot be read as Parquet ({exc}). Make or fetch the file again; it cannot come from a pipe"
        ) from exc
