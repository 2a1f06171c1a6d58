"""Text as systems write it: UTF-8 or UTF-16 with a byte order mark, lines that end with CR alone. Told by a file's first bytes."""

from __future__ import annotations

import codecs
import io
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from embedkit.errors import RecordError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What reading a compressed stream that is cut short or damaged raises, depending on where the damage lies.
DAMAGED = (OSError, EOFError, zlib.error)
UNREADABLE = (*DAMAGED, UnicodeDecodeError)  # what reading a `text_stream` raises; see `unreadable`
# Encodings that files are still found in, the more usual ones first.
_LEGACY = (
    *(
        "cp1252",
        "cp1251",
        "cp932",
        "gb18030",
        "euc_jp",
        "big5",
        "cp949",
        "cp1250",
        "koi8_r",
        "cp1253",
        "cp1254",
        "cp1255",
    ),
    *("cp1256", "cp1257", "cp874", "mac_roman", "cp850", "cp437", "cp866"),
)
_SAMPLE_BYTES = 2**14
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CHUNK_BYTES = 2**16
_HEAD_BYTES = 2**20  # without an LF in so many, CRs end the lines


def text_stream(stream: BinaryIO) -> BinaryIO:
    """Return a stream of the same text as UTF-8 without a mark, its lines ending with LF.

    CR ends lines where the first bytes hold CRs and not one LF, as in files of old Macs; elsewhere a CR is a sign like others.
    What is left undecodable is the reader's to refuse.
    """
    if isinstance(stream, _Text) or not (hasattr(stream, "peek") or isinstance(stream, io.BytesIO)):
        return stream  # decoded already
    peekable = cast("io.BufferedReader", stream if hasattr(stream, "peek") else io.BufferedReader(stream))
    head = peekable.peek(_CHUNK_BYTES)
    encoding = "utf-16" if head.startswith(_UTF16) else None
    cr = b"\r" in head and b"\n" not in head
    if cr and encoding is None and peekable.seekable():  # a first line may be long, and hold a stray CR
        start = peekable.tell()
        cr = b"\n" not in peekable.read(_HEAD_BYTES)
        peekable.seek(start)
    if head.startswith(codecs.BOM_UTF8):
        peekable.read(len(codecs.BOM_UTF8))
    if encoding is None and not cr:
        return cast("BinaryIO", peekable)
    return cast("BinaryIO", _Text(_Translated(peekable, encoding, cr=cr), _CHUNK_BYTES))


def ends_lines_with_lf(stream: BinaryIO) -> bool:
    """Say whether a file's lines can be told by its bytes alone: it is not UTF-16, and no CRs end them. Reads its start."""
    head = stream.read(_HEAD_BYTES)
    return not head.startswith(_UTF16) and not (b"\r" in head and b"\n" not in head)


def unreadable(where: str, exc: Exception) -> RecordError:
    """Say what to do about one of UNREADABLE."""
    if isinstance(exc, UnicodeDecodeError):
        return RecordError(
            f"{where}: begins as UTF-16, but is not ({exc.reason}). Make or fetch the file again"
        )
    return RecordError(
        f"{where}: cannot be read ({exc}). The file is cut short or damaged; make or fetch it again"
    )


def decode(raw: bytes) -> tuple[str, str]:
    """Decode a whole file as `text_stream` does a stream; return the text and its encoding, "utf-8" or "utf-16".

    Raises:
        UnicodeDecodeError: it is in another encoding.
    """
    if raw.startswith(_UTF16):
        return raw.decode("utf-16"), "utf-16"
    return raw.decode("utf-8-sig"), "utf-8"


def decode_legacy(raw: bytes) -> tuple[str, str] | None:
    """Decode what is neither UTF-8 nor UTF-16 by the encoding that its letters speak for: text and encoding, or None.

    It is a guess, best where there is much text; whoever takes it names the encoding. Of encodings that fit equally well the
    one that is first in `_LEGACY` is taken.
    """
    if b"\0" in raw:
        return None
    from charset_normalizer import from_bytes

    telling = b"\n".join(line for line in raw.splitlines() if not line.isascii())[:_SAMPLE_BYTES]
    found = list(from_bytes(telling, cp_isolation=list(_LEGACY)))
    if not found:
        return None
    best = found[0]
    equal = [each for each in found if each.chaos == best.chaos and each.coherence >= best.coherence - 0.1]
    fitting = {name for each in equal for name in each.could_be_from_charset}
    for name in _LEGACY:
        if name in fitting:
            try:
                return raw.decode(name), name
            except UnicodeDecodeError:
                continue
    return None


class _Text(io.BufferedReader):
    """A stream that is decoded already."""


class _Translated(io.RawIOBase):
    """A stream's text as UTF-8, with LF for CR where that ends its lines."""

    def __init__(self, stream: io.BufferedReader, encoding: str | None, *, cr: bool) -> None:
        self._stream, self._cr = stream, cr
        self._decoder = None if encoding is None else codecs.getincrementaldecoder(encoding)()
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: WriteableBuffer) -> int:
        while not self._ready:
            data = self._stream.read1(_CHUNK_BYTES)
            ended = not data
            if self._decoder is not None:
                # A lone half of a pair of surrogates is left for the reader of the UTF-8 to refuse.
                data = self._decoder.decode(data, final=ended).encode("utf-8", "surrogatepass")
            if not data and ended:
                return 0
            self._ready = memoryview(data.replace(b"\r", b"\n") if self._cr else data)
        room = memoryview(target).cast("B")
        size = min(len(room), len(self._ready))
        room[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size
