"""JSON files that hold one list of rows, or rows one after another: read row by row, however large the list is."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from embedkit.data.encodings import UNREADABLE, text_stream, unreadable
from embedkit.errors import RecordError

_CHUNK_BYTES = 2**20
_SPACE = re.compile(r"[ \t\r\n]*")


def array_rows(
    stream: BinaryIO, source: str, max_row_bytes: int
) -> Iterator[tuple[int, Mapping[str, Any]]]:  # Any: whatever JSON holds
    """Read the rows of a JSON list, or of JSON values that follow one another, each with the line that it begins on.

    A string is a row with a `text`.

    Raises (while iterating):
        RecordError: the file is damaged, not JSON, or holds something else than objects and strings.
    """
    reader = _Reader(stream, source, max_row_bytes)
    listed = reader.next_sign() == "["
    if listed:
        reader.skip()
    while (sign := reader.next_sign()) and not (listed and sign == "]"):
        line, value = reader.value()
        if isinstance(value, str):
            value = {"text": value}
        if not isinstance(value, dict):
            raise RecordError(
                f"{source}:{line}: a JSON {type(value).__name__}; each row must be one JSON object. Write it as "
                '{"text": …}'
            )
        yield line, value
        if listed and reader.next_sign() == ",":
            reader.skip()
        elif listed and reader.next_sign() != "]":
            raise reader.wrong("a comma or the end of the list is missing")
    if listed and reader.next_sign() != "]":
        raise reader.wrong("the list has no end")
    if listed:
        reader.skip()
        if reader.next_sign():
            raise reader.wrong("something follows the end of the list")


class _Reader:
    """The text of a stream, of which as much is in memory as one value needs."""

    def __init__(self, stream: BinaryIO, source: str, max_row_bytes: int) -> None:
        self._stream: BinaryIO | None = None
        self._raw, self._source, self._limit = stream, source, max_row_bytes
        self._bytes = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text, self._at = "", 0
        # The line at `_counted`: lines are counted on from there, not from the start each time.
        self._lines, self._counted = 1, 0
        self._ended = False

    def next_sign(self) -> str:
        """Return the next sign that is no space, "" at the end; it is not passed over."""
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def skip(self) -> None:
        """Pass over one sign."""
        self._at += 1

    def value(self) -> tuple[int, Any]:  # Any: whatever JSON holds
        """Return the next value and the line on which it begins."""
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except RecursionError as exc:
                raise self.wrong("it is nested too deeply") from exc
            except ValueError as exc:
                if len(self._text) - self._at > self._limit:
                    raise RecordError(
                        f"{self._source}:{self._line()}: no row ends within {self._limit:,} bytes, which one may have "
                        f"({exc}). Check the brackets",
                        ", or raise the limit with --max-line-bytes",
                    ) from exc
                if not self._fill():
                    raise self.wrong(str(exc)) from exc
                continue
            if end == len(self._text) and self._fill():
                continue  # a number may go on
            line = self._line()
            self._at = end
            return line, value

    def wrong(self, what: str) -> RecordError:
        start = self._text[self._at : self._at + 60]
        return RecordError(
            f"{self._source}:{self._line()}: not JSON ({what}); it goes on with {start!r}. The file must be one list of "
            "objects, or objects one after another"
        )

    def _line(self) -> int:
        """Return the line that is read now."""
        self._lines += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._lines

    def _fill(self) -> bool:
        """Read on, forgetting what was passed over; say whether there was more."""
        if self._ended:
            return False
        try:
            self._stream = self._stream or text_stream(self._raw)
            data = self._stream.read(_CHUNK_BYTES)
        except UNREADABLE as exc:
            raise unreadable(f"{self._source}:{self._line()}", exc) from exc
        try:
            text = self._bytes.decode(data, final=not data)
        except UnicodeDecodeError as exc:
            raise RecordError(
                f"{self._source}:{self._line()}: byte 0x{exc.object[exc.start]:02x} near here is not UTF-8. "
                "Convert the file, for example with: iconv -f latin1 -t utf-8"
            ) from exc
        self._line()  # while what was passed over is still there
        self._text, self._at, self._counted = self._text[self._at :] + text, 0, 0
        self._ended = not data
        return not self._ended
