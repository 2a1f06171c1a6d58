"""Cutting ASCII text into pieces of a WordPiece vocabulary with the kernel of kernels/wordpiece.c."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from embedkit.native.library import load_library, why_not_loadable

Int32 = NDArray[np.int32]
LONGEST_WORD = 256  # WORD in kernels/wordpiece.c
LONGEST_STRETCH = 64  # bytes; longer ones hardly come twice
MOST_STRETCHES, IDS_A_STRETCH = 2**16, 16
MOST_MISSING = 4096  # stretches that a call names


class _Strings(ctypes.Structure):
    """`struct strings` of kernels/wordpiece.c."""

    _fields_ = (
        ("bytes", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("slots", ctypes.c_void_p),
        ("mask", ctypes.c_int64),
        ("count", ctypes.c_int64),
    )


class _WordPiece(ctypes.Structure):
    """`struct wordpiece`."""

    _fields_ = (
        ("first", _Strings),
        ("following", _Strings),
        ("first_ids", ctypes.c_void_p),
        ("following_ids", ctypes.c_void_p),
        ("stretches", _Strings),
        *(
            (name, ctypes.c_void_p)
            for name in ("stretch_starts", "stretch_ids", "refused", "special", "special_starts")
        ),
        *(
            (name, ctypes.c_int64)
            for name in (
                *("num_special", "longest_piece", "longest_word", "longest_stretch", "unknown", "lower"),
            )
        ),
    )


class _Tokens(ctypes.Structure):
    """`struct tokens`."""

    _fields_ = (
        ("ids", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("lengths", ctypes.c_void_p),
        ("missing", ctypes.c_void_p),
        ("missing_capacity", ctypes.c_int64),
        ("num_missing", ctypes.c_int64),
    )


@cache
def can_cut() -> bool:
    """Say whether the kernel can run here."""
    return why_not_loadable() is None


@dataclass(frozen=True, kw_only=True)
class PieceVocabulary:
    """Pieces that begin a word and those that go on, without their mark, with their ids; and what decides how they are used.

    `special` tokens are the caller's to find: a text that holds one, in letters of any size, is not read. All strings are ASCII, those
    of special tokens without white space.
    """

    first: Mapping[str, int]
    following: Mapping[str, int]
    unknown: int
    special: Sequence[str]
    longest_word: int
    lower: bool


@dataclass(frozen=True)
class CutTexts:
    """What was read of B texts.

    Shapes:
        ids: (N,) int32, of the texts that were read, one after the other
        lengths: (B,) int32, tokens of each text; -1 of one that has to be read otherwise
        missing: stretches that are not known, and without whose tokens their texts are
    """

    ids: Int32
    lengths: Int32
    missing: set[bytes]


class WordPieceTable:
    """A vocabulary, and stretches that hold other letters than ASCII has, with the tokens that `add` says they have.

    One thread at a time may use it.
    """

    def __init__(self, vocabulary: PieceVocabulary) -> None:
        self._library = load_library()
        self._kept: list[object] = []  # arrays that the structure points to
        self._table = table = _WordPiece()
        for name, pieces in (("first", vocabulary.first), ("following", vocabulary.following)):
            setattr(table, name, self._strings([piece.encode() for piece in pieces]))
            setattr(table, f"{name}_ids", self._keep(np.fromiter(pieces.values(), np.int32, len(pieces))))
        special = [token.lower().encode() for token in vocabulary.special]
        refused = np.zeros(256, np.uint8)
        for token in special:
            refused[[token[0], token[:1].upper()[0]]] = 1
        table.refused = self._keep(refused)
        table.special, table.special_starts = self._joined(special)
        table.num_special = len(special)
        longest = max(map(len, [*vocabulary.first, *vocabulary.following]), default=0)
        table.longest_piece, table.longest_word = longest, vocabulary.longest_word
        table.longest_stretch, table.unknown = LONGEST_STRETCH, vocabulary.unknown
        table.lower = vocabulary.lower
        self._missing = np.empty((MOST_MISSING, 2), np.int64)
        self._forget()

    def cut(self, text: bytes, count: int) -> CutTexts | None:
        """Read `count` texts, UTF-8 parted by zeros; None where they are not so many, or have more tokens than bytes."""
        ids = np.empty(len(text) + 64, np.int32)
        lengths = np.empty(max(1, count), np.int32)
        if text.count(0) != count - 1:
            return None
        out = _Tokens(
            ids=ids.ctypes.data,
            capacity=len(ids),
            lengths=lengths.ctypes.data,
            missing=self._missing.ctypes.data,
            missing_capacity=MOST_MISSING,
        )
        read = self._library.embedkit_wordpiece(ctypes.byref(self._table), text, len(text), ctypes.byref(out))
        if read < count:
            return None
        missing = {text[start:stop] for start, stop in self._missing[: out.num_missing].tolist()}
        return CutTexts(ids[: out.count], lengths, missing)

    def add(self, stretches: Sequence[bytes], tokens: Sequence[Sequence[int]]) -> None:
        """Remember the tokens of stretches that are not known yet; where there is no room, those that are known go first, then some of these."""
        strings = self._table.stretches
        if strings.count + len(stretches) > MOST_STRETCHES:
            self._forget()
        before = number = strings.count
        for stretch, own in zip(stretches, tokens, strict=True):
            first, last = self._starts[number], self._starts[number] + len(stretch)
            first_id, last_id = self._id_starts[number], self._id_starts[number] + len(own)
            if number == MOST_STRETCHES or last_id > len(self._ids):
                break
            self._bytes[first:last] = np.frombuffer(stretch, np.uint8)
            self._ids[first_id:last_id] = own
            number += 1
            self._starts[number], self._id_starts[number] = last, last_id
        strings.count = number
        self._library.embedkit_add_strings(ctypes.byref(strings), before)

    def _forget(self) -> None:
        """Make room for stretches; of these arrays only what is written takes memory."""
        self._bytes = np.empty(MOST_STRETCHES * LONGEST_STRETCH, np.uint8)
        self._starts, self._id_starts = np.zeros((2, MOST_STRETCHES + 1), np.int32)
        self._ids = np.empty(MOST_STRETCHES * IDS_A_STRETCH, np.int32)
        self._slots = np.full(2 * MOST_STRETCHES, -1, np.int32)
        strings = self._table.stretches
        strings.bytes, strings.starts = self._bytes.ctypes.data, self._starts.ctypes.data
        strings.slots, strings.mask, strings.count = self._slots.ctypes.data, len(self._slots) - 1, 0
        self._table.stretch_ids = self._ids.ctypes.data
        self._table.stretch_starts = self._id_starts.ctypes.data

    def _strings(self, strings: Sequence[bytes]) -> _Strings:
        size = 1 << max(4, 2 * len(strings) - 1).bit_length()
        made = _Strings(mask=size - 1, count=len(strings))
        made.bytes, made.starts = self._joined(strings)
        made.slots = self._keep(np.full(size, -1, np.int32))
        self._library.embedkit_add_strings(ctypes.byref(made), 0)
        return made

    def _joined(self, strings: Sequence[bytes]) -> tuple[int, int]:
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(each) for each in strings])])
        return self._keep(np.frombuffer(b"".join(strings) + b"\0", np.uint8)), self._keep(
            starts.astype(np.int32)
        )

    def _keep(self, array: NDArray[np.generic]) -> int:
        self._kept.append(array)
        return int(array.ctypes.data)
