"""What goes in and what comes out: documents, queries, hits, and the readers that make them from files.

Every record knows the file and line it came from, so that whatever is wrong with it later can be said with its place.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from embedkit.errors import RecordError
from embedkit.extras import load_extra

Format = Literal["txt", "jsonl", "csv", "tsv", "parquet", "file"]

STDIN = "-"
LINE_SUFFIXES: dict[str, Format] = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
WHOLE_FILE_SUFFIXES = (".md", ".markdown", ".rst", ".html", ".htm")
COMPRESSED_SUFFIXES = (".gz", ".zst")

# Looked for in this order where the user names no field.
ID_FIELDS = ("_id", "id", "doc_id")
TEXT_FIELDS = ("text", "body", "content", "sentence")
TITLE_FIELDS = ("title",)


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its id. `source` and `line` say where it was read (line 0: the whole file)."""

    doc_id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)  # Any: whatever JSON holds
    source: str = ""
    line: int = 0

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Query:
    query_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result; a higher `score` is better, always.

    `passage` is the number of the passage within its document (0 where the document was not cut), and
    `scores` names the parts that `score` was made of, such as `dense`, `text` or `rerank`.
    """

    doc_id: str
    score: float
    text: str = ""
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)  # Any: whatever JSON holds
    passage: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read files of records.

    `format` None goes by the file's name. `text_unit` says what one text is in a `.txt` file: a line, or the file.
    Longer lines than `max_line_bytes` are an error: a text of that size is nearly always a file without line ends.
    """

    format: Format | None = None
    text_field: str | None = None
    id_field: str | None = None
    title_field: str | None = None
    text_unit: Literal["line", "file"] = "line"
    max_line_bytes: int = 16 * 2**20

    def __post_init__(self) -> None:
        if self.max_line_bytes < 1:
            raise ValueError(f"max_line_bytes is {self.max_line_bytes}; it must be at least 1")


class DocumentReader:
    """Iterate over the documents of many files, knowing how far along it is.

    Raises (while iterating):
        RecordError: a file or line that cannot be read; the message names it.
    """

    def __init__(self, inputs: Sequence[str], options: ReadOptions | None = None) -> None:
        self.options = options if options is not None else ReadOptions()
        self.paths = expand_inputs(inputs, explicit_format=self.options.format)
        self.bytes_total = sum(path.stat().st_size for path in self.paths if str(path) != STDIN)
        self._bytes_done = 0
        self._stream: BinaryIO | None = None

    def __iter__(self) -> Iterator[Document]:
        for path in self.paths:
            if str(path) == STDIN:
                yield from read_stream(sys.stdin.buffer, "stdin", self.options)
                continue
            yield from self._read_file(path)
            self._bytes_done += path.stat().st_size

    def _read_file(self, path: Path) -> Iterator[Document]:
        try:
            with path.open("rb") as stream:
                self._stream = stream
                yield from read_stream(stream, path.as_posix(), self.options)
        except OSError as exc:
            raise RecordError(
                f"{path}: cannot be read ({exc.strerror or exc}). Check its permissions"
            ) from exc
        finally:
            self._stream = None

    def fraction(self) -> float | None:
        """Tell the share of the input's bytes that has been read, or None where the input is a pipe."""
        if not self.bytes_total:
            return None
        here = 0
        if self._stream is not None and not self._stream.closed:
            here = self._stream.tell()
        return min(1.0, (self._bytes_done + here) / self.bytes_total)


def read_documents(inputs: Sequence[str], options: ReadOptions | None = None) -> Iterator[Document]:
    """Read the documents of files, folders, globs or `-`, in the order given and by name within a folder."""
    return iter(DocumentReader(inputs, options))


def read_queries(inputs: Sequence[str], options: ReadOptions | None = None) -> Iterator[Query]:
    """Read queries from the same kinds of files as documents."""
    return (Query(document.doc_id, document.text) for document in read_documents(inputs, options))


def expand_inputs(inputs: Sequence[str], *, explicit_format: Format | None = None) -> list[Path]:
    """Turn files, globs, folders and `-` into a list of files, each once.

    Raises:
        RecordError: nothing is there, a folder holds no file we read, or the format cannot be told.
    """
    if not inputs:
        raise RecordError("no input was given; name files, folders or globs, or '-' to read standard input")
    paths: dict[Path, None] = {}
    for name in inputs:
        for path in _expand_one(name, explicit_format):
            paths.setdefault(path)
    return list(paths)


def _expand_one(name: str, explicit_format: Format | None) -> list[Path]:
    path = Path(name)
    if name == STDIN:
        return [path]
    if path.is_dir():
        found = sorted(child for child in path.rglob("*") if child.is_file() and _is_known(child))
        if not found:
            raise RecordError(
                f"{name}: the folder holds no file with a known ending; known are {_known_endings()}"
            )
        return found
    if path.exists():
        if explicit_format is None and not _is_known(path):
            raise RecordError(
                f"{name}: the ending {path.suffix!r} is not known; known are {_known_endings()}. "
                "Say what it is with --format txt|jsonl|csv|tsv|parquet|file"
            )
        return [path]
    if glob.has_magic(name):
        matches = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 (absolute patterns)
        matches = [match for match in matches if match.is_file()]
        if not matches:
            raise RecordError(f"{name}: the pattern matches no file; look with: ls {name}")
        return matches
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []  # noqa: PTH208 (names, not paths)
    close = get_close_matches(path.name, siblings, n=1)
    hint = f"did you mean {(path.parent / close[0]).as_posix()!r}?" if close else "check the path"
    raise RecordError(f"{name}: there is no such file or folder; {hint}")


def _known_endings() -> str:
    return " ".join((*LINE_SUFFIXES, *WHOLE_FILE_SUFFIXES)) + " (each also with .gz or .zst)"


def _plain_suffix(path: str | Path) -> str:
    """Return the lower-case ending that tells the format, with .gz and .zst taken off."""
    path = Path(path)
    if path.suffix.lower() in COMPRESSED_SUFFIXES:
        path = path.with_suffix("")
    return path.suffix.lower()


def _is_known(path: Path) -> bool:
    suffix = _plain_suffix(path)
    return suffix in LINE_SUFFIXES or suffix in WHOLE_FILE_SUFFIXES


def read_stream(stream: BinaryIO, source: str, options: ReadOptions) -> Iterator[Document]:
    """Read the documents of one open binary file; `source` is its name in ids and messages."""
    lines = _open_compressed(stream, source)
    suffix = _plain_suffix(source)
    form = options.format or LINE_SUFFIXES.get(suffix) or ("file" if suffix in WHOLE_FILE_SUFFIXES else None)
    if form is None:  # a pipe has no name to go by
        lines, form = _sniff(lines, options)
    if form == "file" or (form == "txt" and options.text_unit == "file"):
        return iter([_whole_file(lines, source, options)])
    if form == "txt":
        return _read_txt(lines, source, options)
    if form == "jsonl":
        return _from_rows(_json_rows(lines, source, options), source, options)
    if form == "parquet":
        parquet = load_extra("parquet", purpose=f"reading {source}")
        return _from_rows(enumerate(parquet.read_rows(lines, source), 1), source, options)
    return _from_rows(_separated_rows(lines, source, options, form), source, options)


def _open_compressed(stream: BinaryIO, source: str) -> BinaryIO:
    ending = Path(source).suffix.lower()
    if ending == ".gz":
        return cast("BinaryIO", gzip.GzipFile(fileobj=stream))
    if ending == ".zst":
        zstd = load_extra("zstd", purpose=f"reading {source}")
        return cast("BinaryIO", zstd.open_reader(stream))
    return stream


def _sniff(stream: BinaryIO, options: ReadOptions) -> tuple[BinaryIO, Format]:
    """Tell JSON lines from plain text by the first line of a pipe, without losing it."""
    first = stream.readline(options.max_line_bytes + 1)
    try:
        form: Format = "jsonl" if isinstance(json.loads(first), dict) else "txt"
    except ValueError:
        form = "txt"
    return cast("BinaryIO", _Pushback(first, stream)), form


class _Pushback:
    """A binary stream with its first line put back in front."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first = io.BytesIO(first)
        self._rest = rest

    def readline(self, size: int = -1) -> bytes:
        return self._first.readline(size) or self._rest.readline(size)

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self._first.read() + self._rest.read()
        return self._first.read(size) or self._rest.read(size)


def read_lines(stream: BinaryIO, source: str, max_line_bytes: int) -> Iterator[tuple[int, str]]:
    """Yield (line number, text without its line end), refusing lines that are too long or not UTF-8."""
    number = 0
    while True:
        try:
            raw = stream.readline(max_line_bytes + 1)
        except (OSError, EOFError) as exc:  # a damaged .gz says so only here
            raise RecordError(
                f"{source}:{number + 1}: the compressed data breaks off ({exc}). Make or fetch the file again"
            ) from exc
        if not raw:
            return
        number += 1
        if len(raw) > max_line_bytes:
            raise RecordError(
                f"{source}:{number}: the line is longer than {max_line_bytes:,} bytes, which one text may have. "
                "Split it into lines, or raise the limit with --max-line-bytes"
            )
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            yield number, raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as exc:
            raise RecordError(
                f"{source}:{number}: byte 0x{raw[exc.start]:02x} at column {exc.start + 1} is not UTF-8. "
                f"Convert the file, for example with: iconv -f latin1 -t utf-8"
            ) from exc


def _read_txt(stream: BinaryIO, source: str, options: ReadOptions) -> Iterator[Document]:
    # A blank line stays: row i of the vectors is line i of the file.
    for number, line in read_lines(stream, source, options.max_line_bytes):
        yield Document(f"{source}:{number}", line, "", {}, source, number)


def _whole_file(stream: BinaryIO, source: str, options: ReadOptions) -> Document:
    # Four lines' worth: a whole document may be longer than a line may be.
    limit = 4 * options.max_line_bytes
    raw = stream.read(limit + 1)
    if len(raw) > limit:
        raise RecordError(
            f"{source}: the file is larger than {limit:,} bytes, which one document may have. Split it"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise RecordError(
            f"{source}: byte 0x{raw[exc.start]:02x} at offset {exc.start} is not UTF-8. "
            "Convert the file, for example with: iconv -f latin1 -t utf-8"
        ) from exc
    suffix = _plain_suffix(source)
    title = ""
    if suffix in (".html", ".htm"):
        title, text = load_extra("html", purpose=f"reading {source}").extract_text(text)
    return Document(source, text, title or _first_heading(text, suffix) or Path(source).stem, {}, source, 0)


def _first_heading(text: str, suffix: str) -> str:
    """Return the first Markdown or reStructuredText heading among the first lines, or ''."""
    lines = text.split("\n", 50)[:50]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        stripped = line.strip()
        if suffix in (".md", ".markdown") and stripped.startswith("# "):
            return stripped.lstrip("# ").strip()
        underline = following.strip()
        if (
            suffix == ".rst"
            and stripped
            and len(underline) >= 3
            and set(underline) <= set("=-~*#")
            and len(set(underline)) == 1
        ):
            return stripped
    return ""


Row = tuple[int, Mapping[str, Any]]  # line number, fields


def _json_rows(stream: BinaryIO, source: str, options: ReadOptions) -> Iterator[Row]:
    for number, line in read_lines(stream, source, options.max_line_bytes):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:
            start = line if len(line) <= 60 else line[:60] + "…"
            raise RecordError(
                f"{source}:{number}: not JSON ({exc}); the line starts {start!r}. Each line must be one JSON object"
            ) from exc
        if not isinstance(row, dict):
            raise RecordError(
                f"{source}:{number}: a JSON {type(row).__name__}; each line must be one JSON object"
            )
        yield number, row


def _separated_rows(stream: BinaryIO, source: str, options: ReadOptions, form: str) -> Iterator[Row]:
    lines = read_lines(stream, source, options.max_line_bytes)
    rows: Iterable[list[str]]
    if form == "tsv":  # tabs only, no quoting: what the field's data sets use
        numbered = ((number, line.split("\t")) for number, line in lines)
    else:
        csv.field_size_limit(options.max_line_bytes)
        reader = csv.reader((line + "\n" for _, line in lines), strict=True)
        numbered = (
            (reader.line_num, [cell.removesuffix("\n") for cell in row]) for row in _csv_guard(reader, source)
        )
    first = next(numbered, None)
    if first is None:
        return
    header = first[1]
    if len(set(header)) != len(header):
        raise RecordError(
            f"{source}:1: a column name stands twice in the header: {', '.join(header)}. Rename one"
        )
    for number, cells in numbered:
        if cells in ([], [""]) and len(header) > 1:
            continue
        if len(cells) != len(header):
            raise RecordError(
                f"{source}:{number}: {len(cells)} columns where the header has {len(header)} ({', '.join(header)}). "
                "Check the separators and quotes of this line"
            )
        yield number, dict(zip(header, cells, strict=True))


def _csv_guard(
    reader: Any, source: str
) -> Iterator[list[str]]:  # Any: the csv module does not export its type
    try:
        yield from reader
    except csv.Error as exc:
        raise RecordError(
            f"{source}:{reader.line_num}: not CSV ({exc}). Check the quotes of this line"
        ) from exc


def _from_rows(rows: Iterable[Row], source: str, options: ReadOptions) -> Iterator[Document]:
    rows = iter(rows)
    head = next(rows, None)
    if head is None:
        return
    for number, row in chain([head], rows):
        where = f"{source}:{number}"
        text_field = _pick(row, options.text_field, TEXT_FIELDS)
        if text_field is None:
            wanted = options.text_field or TEXT_FIELDS[0]
            raise RecordError(
                f"{where}: missing key {wanted!r}; keys here: {', '.join(map(str, row)) or 'none'}. "
                "Rename it or pass --text-field NAME"
            )
        id_field = _pick(row, options.id_field, ID_FIELDS)
        if id_field is None and options.id_field is not None:
            raise RecordError(
                f"{where}: missing key {options.id_field!r}; keys here: {', '.join(map(str, row)) or 'none'}. "
                "Rename it or pass --id-field NAME"
            )
        title_field = _pick(row, options.title_field, TITLE_FIELDS)
        doc_id = where if id_field is None else _as_id(row[id_field], where, id_field)
        title = "" if title_field is None else _as_text(row[title_field], where, title_field, none="")
        known = (text_field, id_field, title_field)
        metadata = {key: value for key, value in row.items() if key not in known}
        yield Document(doc_id, _as_text(row[text_field], where, text_field), title, metadata, source, number)


def _pick(row: Mapping[str, Any], named: str | None, usual: Sequence[str]) -> str | None:
    candidates = usual if named is None else (named,)
    return next((name for name in candidates if name in row), None)


def _as_text(value: Any, where: str, name: str, *, none: str | None = None) -> str:
    if value is None and none is not None:
        return none
    if not isinstance(value, str):
        raise RecordError(f"{where}: {name!r} is {_json_kind(value)}; it must be a string")
    if not value.isascii():
        _refuse_surrogates(value, where, name)
    return value


def _as_id(value: Any, where: str, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RecordError(
            f"{where}: {name!r} is {_json_kind(value)}; an id must be a string or a whole number"
        )
    doc_id = str(value)
    if not doc_id or any(sign in doc_id for sign in "\n\r\t"):
        raise RecordError(
            f"{where}: {name!r} is {doc_id!r}; an id must not be empty nor hold tabs or line ends"
        )
    _refuse_surrogates(doc_id, where, name)
    return doc_id


def _refuse_surrogates(value: str, where: str, name: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise RecordError(
            f"{where}: {name!r} holds the lone surrogate U+{ord(value[exc.start]):04X} at character {exc.start + 1}, "
            "which is not a character. Write the text again as UTF-8"
        ) from exc


def _json_kind(value: Any) -> str:
    kinds = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), type(value).__name__)
