"""Read documents and queries from files of every known format, one at a time."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

from embedkit.data.column_types import typed
from embedkit.data.formats import (
    Row,
    format_of,
    json_rows,
    named_rows,
    open_compressed,
    read_lines,
    sniff,
    with_places,
)
from embedkit.data.paths import STDIN, expand
from embedkit.data.places import Mark, MarkKind
from embedkit.data.records import (
    ID_FIELDS,
    ID_RULE,
    TITLE_FIELDS,
    Document,
    Query,
    QueryReadOptions,
    ReadOptions,
    is_id,
)
from embedkit.data.walking import WalkOptions
from embedkit.data.whole_file import read_whole_file
from embedkit.errors import RecordError

LineFormat = Literal["txt", "jsonl"]  # of which every line is a record by itself


class DocumentReader:
    """Iterate over the documents of many files, knowing how far along it is.

    With `tolerant` a file of a folder or glob that cannot be read is passed over, named in `failed`, and so is a folder; what was
    named itself stays an error. `walking` says what of a folder is read; with it the encoding of a document that is neither UTF-8
    nor UTF-16 is guessed, and `encodings` counts what was met. `name_of` says what a file is called in the ids that come of its path.

    Raises (while iterating):
        RecordError: a file or line that cannot be read; the message names it.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        options: ReadOptions | None = None,
        *,
        tolerant: bool = False,
        walking: WalkOptions | None = None,
    ) -> None:
        self.options = options if options is not None else ReadOptions()
        self.inputs = list(inputs)
        expanded = expand(inputs, explicit_format=self.options.format, walking=walking)
        self.paths, self.left_out = expanded.paths, expanded.left_out
        self._named, self._tolerant, self._guesses = expanded.named, tolerant, walking is not None
        self.encodings: Counter[str] = Counter()  # of files that are not UTF-8, by name
        self.failed = list(expanded.left_out.unreadable)
        if self.failed and not tolerant:
            raise RecordError(f"{self.failed[0]}. Check its permissions")
        self.name_of: Callable[[Path], str] = Path.as_posix
        self.bytes_total = sum(_size(path) for path in self.paths if str(path) != STDIN)
        self._bytes_done = 0
        self._stream: BinaryIO | None = None

    def __iter__(self) -> Iterator[Document]:
        for path in self.paths:
            if str(path) == STDIN:
                yield from read_stream(sys.stdin.buffer, "stdin", self.options)
                continue
            try:
                yield from self._read_file(path)
            except RecordError as exc:
                if not self._tolerant or path in self._named:
                    raise
                self.failed.append(str(exc))
            self._bytes_done += _size(path)

    def _read_file(self, path: Path) -> Iterator[Document]:
        shown, source, name = path.as_posix(), path.resolve().as_posix(), self.name_of(path)
        options = self.options
        if (
            format_of(path) is None and options.format is None
        ):  # a text of another kind, that `walking` lets in
            options = replace(options, format="file")
        try:
            with path.open("rb") as stream:
                self._stream = stream
                for document in read_stream(stream, shown, options, guess_encoding=self._guesses):
                    doc_id = document.doc_id
                    of_path = f"{doc_id}.".startswith(f"{document.where}.")
                    if name != shown and of_path:
                        doc_id = name + doc_id.removeprefix(shown)
                    if document.encoding != "utf-8":
                        self.encodings[document.encoding] += 1
                    yield replace(document, doc_id=doc_id, source=source, shown=shown)
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
        stream, here = self._stream, 0
        if stream is not None:
            with suppress(OSError, ValueError):  # another thread reads, and may close it at this moment
                here = stream.tell()
        return min(1.0, (self._bytes_done + here) / self.bytes_total)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it went away, or may not be looked at: reading it will say so
        return 0


def read_documents(inputs: Sequence[str], options: ReadOptions | None = None) -> Iterator[Document]:
    """Read the documents of files, folders, globs or `-`, in the order given and by name within a folder."""
    return iter(DocumentReader(inputs, options))


def read_queries(inputs: Sequence[str], options: ReadOptions | None = None) -> Iterator[Query]:
    """Read queries from the same kinds of files as documents."""
    documents = read_documents(inputs, options or QueryReadOptions())
    return (Query(document.doc_id, document.text) for document in documents)


def read_stream(
    stream: BinaryIO, source: str, options: ReadOptions, *, guess_encoding: bool = False
) -> Iterator[Document]:
    """Read the documents of one open binary file; `source` is its name in ids and messages.

    With `guess_encoding` the encoding of a file that is one document, and neither UTF-8 nor UTF-16, is guessed.
    """
    stream = open_compressed(stream, source)
    form, limit = options.format or format_of(source), options.max_line_bytes
    if form is None:  # a pipe has no name to go by
        stream, form = sniff(stream, limit, source)
    if form == "txt" and options.text_unit == "file":
        form = "file"
    match form:
        case "file":
            return iter([read_whole_file(stream, source, limit, guess=guess_encoding)])
        case "txt":
            return _read_txt(stream, source, limit)
        case "jsonl" | "json" | "csv" | "tsv" | "parquet":
            rows = named_rows(
                stream,
                source,
                form,
                max_line_bytes=limit,
                delimiter=options.delimiter,
                header=options.header,
            )
            separated = form in ("csv", "tsv")
            unit: MarkKind = "row" if form == "parquet" else "line"
            documents = _from_rows(rows, source, options, unit, separated=separated)
            return typed(documents) if separated else documents


def read_line_records(
    stream: BinaryIO, source: str, options: ReadOptions, form: LineFormat, *, before: int = 0
) -> Iterator[Document]:
    """Read the documents of a stream of lines of which each is one, wherever in a file it begins: after `before` lines."""
    if form == "txt":
        return _read_txt(stream, source, options.max_line_bytes, before=before)
    rows = json_rows(stream, source, options.max_line_bytes, before=before)
    return _from_rows(rows, source, options, "line", separated=False)


def _read_txt(stream: BinaryIO, source: str, max_line_bytes: int, *, before: int = 0) -> Iterator[Document]:
    # A blank line stays: row i of the vectors is line i of the file.
    for number, line in read_lines(stream, source, max_line_bytes, before=before):
        marks = (Mark(0, "line", number),)
        yield Document(f"{source}:{number}", line, "", {}, source, number, marks=marks)


def _from_rows(
    rows: Iterator[Row], source: str, options: ReadOptions, unit: MarkKind, *, separated: bool
) -> Iterator[Document]:
    numbered = separated and not options.header
    for where, number, row in with_places(rows, source):
        if numbered and options.text_field is None:
            options = _by_place(row, where, options)
        text_field = _pick(row, options.text_field, options.TEXT_FIELDS)
        if text_field is None:
            hint = ", or --no-header where the first line is data" if separated and options.header else ""
            raise _missing(row, where, options.text_field or options.TEXT_FIELDS[0], "--text-field", hint)
        id_field = _pick(row, options.id_field, ID_FIELDS)
        if id_field is None and options.id_field is not None:
            raise _missing(row, where, options.id_field, "--id-field")
        title_field = _pick(row, options.title_field, TITLE_FIELDS)
        doc_id = where if id_field is None else _as_id(row[id_field], where, id_field)
        title = "" if title_field is None else _as_text(row[title_field], where, title_field)
        known = (text_field, id_field, title_field)
        metadata = {key: value for key, value in row.items() if key not in known}
        text = _as_text(row[text_field], where, text_field)
        marks = (Mark(0, unit, number),)
        yield Document(doc_id, text, title, metadata, source, number, marks=marks)


def _by_place(row: Mapping[str, Any], where: str, options: ReadOptions) -> ReadOptions:
    """Choose the columns of a file without a header: the text alone, or the id and the text."""
    if len(row) > 2:
        raise RecordError(
            f"{where}: {len(row)} columns without a header; say which one holds the text, such as --text-field {len(row)}, "
            "and which the id: --id-field 1"
        )
    id_field = options.id_field or ("1" if len(row) == 2 else None)
    return replace(options, text_field=str(len(row)), id_field=id_field)


def _missing(row: Mapping[str, Any], where: str, wanted: str, option: str, hint: str = "") -> RecordError:
    keys = ", ".join(row) or "none"
    return RecordError(
        f"{where}: missing key {wanted!r}; keys here: {keys}. Rename one of them",
        f", or pass {option} NAME{hint}",
    )


def _pick(row: Mapping[str, Any], named: str | None, usual: tuple[str, ...]) -> str | None:
    if named is not None:
        return named if named in row else None
    return _usual_field(tuple(row), usual)


@lru_cache(maxsize=64)  # the rows of a file have the same fields
def _usual_field(fields: tuple[str, ...], usual: tuple[str, ...]) -> str | None:
    """Return the field that has the first of the usual names, in large or small letters; the exact name first."""
    small = {field.strip().lower(): field for field in reversed(fields)}
    return next((name if name in fields else small[name] for name in usual if name in small), None)


def _as_text(value: Any, where: str, name: str) -> str:
    """Return a text; null is none, and counted among the empty ones."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordError(
            f"{where}: {name!r} is {_json_kind(value)}; it must be a string. Quote it, or name another key"
        )
    if not value.isascii():
        refuse_surrogates(value, where, name)
    return value


def _as_id(value: Any, where: str, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RecordError(
            f"{where}: {name!r} is {_json_kind(value)}; an id must be a string or a whole number. Change it"
        )
    doc_id = str(value)
    if not is_id(doc_id):
        raise RecordError(f"{where}: {name!r} is {doc_id!r}; {ID_RULE}. Change it")
    refuse_surrogates(doc_id, where, name)
    return doc_id


def refuse_surrogates(value: str, where: str, name: str) -> None:
    """Refuse a text that JSON can write and UTF-8 cannot."""
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
