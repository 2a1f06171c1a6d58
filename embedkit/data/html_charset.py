"""Decoding HTML pages: by their byte-order mark, else the charset that they declare, else UTF-8."""

from __future__ import annotations

import codecs
import re

from embedkit.errors import RecordError

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# A page declares its charset near its start: <meta charset=…>, <meta … content="text/html; charset=…">, <?xml … encoding=…?>.
_START_BYTES = 4096
_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
_DECLARED = re.compile(
    rb"""<(?:meta\b[^>]*?\bcharset|\?xml\b[^>]*?\bencoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE
)
# What browsers take these names for: pages that declare the smaller set are written in the larger one.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    # A declaration that can be read as ASCII does not stand in UTF-16.
    "utf-16": "utf-8",
    "utf-16-le": "utf-8",
    "utf-16-be": "utf-8",
}
# Python's names of the charsets that pages are written in; it knows others, such as "unicode_escape", that no page is.
_CHARSETS = re.compile(
    r"utf-8|cp\d+|iso8859-\d+|koi8-[rut]|mac-\w+|gb18030|big5\w*|euc_\w+|iso2022_\w+|johab|hz"
)


def decode_html(raw: bytes, source: str) -> tuple[str, str]:
    """Decode a page; return its text and its charset. `source` is its name in messages.

    Raises:
        RecordError: the charset is not known, or the page is not written in it.
    """
    for mark, charset in _MARKS:
        if raw.startswith(mark):
            said = f"{charset.upper()}, as its byte-order mark says"
            return _decode(raw.removeprefix(mark), charset, said, source), charset.removesuffix(
                "-le"
            ).removesuffix("-be")
    found = _DECLARED.search(_COMMENT.sub(b"", raw[:_START_BYTES]))
    if found is None:
        return _decode(raw, "utf-8", "UTF-8", source), "utf-8"
    label = found[1].decode("latin-1")
    charset = _charset(label, source)
    return _decode(raw, charset, f"{label}, which the page declares", source), charset


def _charset(label: str, source: str) -> str:
    """Return Python's name of a charset: "cp1252" for "ISO-8859-1", as in every browser."""
    try:
        name = codecs.lookup(label).name
    except LookupError:
        name = ""
    name = _SUPERSETS.get(name, name)
    if not _CHARSETS.fullmatch(name):
        raise RecordError(
            f"{source}: the page declares the charset {label!r}, which is not known. Convert the file to UTF-8 "
            "and declare it with: <meta charset=utf-8>"
        )
    return name


def _decode(raw: bytes, charset: str, said: str, source: str) -> str:
    try:
        return raw.decode(charset)
    except UnicodeDecodeError as exc:
        raise RecordError(
            f"{source}: byte 0x{raw[exc.start]:02x} at offset {exc.start} is not {said}. "
            "Convert the file to UTF-8 and declare it with: <meta charset=utf-8>"
        ) from exc
