"""The standard streams of a command: what cannot be read or written is said by name, and no letter is one too many."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

from embedkit.errors import EmbedkitError

from .plain import plain

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class StreamError(EmbedkitError):
    """Standard input cannot be read, or standard output not written."""


class ReaderGoneError(Exception):
    """Whoever read standard output wants no more of it, as `head` does; this is no fault."""


class _Input(io.FileIO):
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return super().readinto(buffer)
        except OSError as exc:
            raise _explained("standard input", "read", exc) from exc

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as exc:
            raise _explained("standard input", "read", exc) from exc


class _Output(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError as exc:
            raise ReaderGoneError from exc
        except OSError as exc:
            raise _explained("standard output", "written", exc) from exc


class _Errors(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes  # nowhere is left to say so; the exit code still tells


class _Messages(io.TextIOWrapper):
    """Standard error: whoever writes there, control characters do not get through. Styled text goes to `styled`."""

    styled: io.TextIOWrapper

    def write(self, text: str) -> int:
        return super().write(plain(text))


def _explained(stream: str, done: str, exc: OSError) -> StreamError:
    if exc.errno == errno.EBADF:
        return StreamError(f"{stream} is closed, but this command needs it. Connect it to a file or a pipe")
    return StreamError(f"{stream} cannot be {done} ({exc.strerror}). Connect it to another file or a pipe")


def open_standard_streams() -> None:
    """Put streams in place of Python's own, whose errors end in tracebacks; one that is closed becomes one that fails.

    A closed one would else be None, and the next file that is opened would take its number.
    """
    # In the wrong direction, so that using it fails; but for standard error, where messages may vanish.
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free
    encoding, unbuffered = _encoding(sys.stdin), getattr(sys.stdout, "write_through", False)
    read = io.BufferedReader(_Input(0, "r", closefd=False))
    sys.stdin = io.TextIOWrapper(read, encoding, "replace")
    output = _Output(1, "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        output if unbuffered else io.BufferedWriter(output),  # as Python itself does
        _encoding(sys.stdout),
        "replace",
        line_buffering=output.isatty(),
        write_through=unbuffered,
    )
    encoding, errors = _encoding(sys.stderr), io.BufferedWriter(_Errors(2, "w", closefd=False))
    messages = _Messages(errors, encoding, "backslashreplace", line_buffering=True)
    messages.styled = io.TextIOWrapper(errors, encoding, "backslashreplace", line_buffering=True)
    sys.stderr = messages


def _encoding(stream: io.TextIOBase | object | None) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def drop_output() -> None:
    """Send what is left of standard output nowhere: Python tries again at exit what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
