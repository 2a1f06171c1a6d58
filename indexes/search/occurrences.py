"""Where the terms of a query stand in the text index: the rows, each as often as it has the term."""

from __future__ import annotations

import re
import sqlite3
from functools import cache, lru_cache
from threading import Lock

import numpy as np

from ..storage.codes import RowArray
from ..storage.database import Database
from ..storage.words import TOKENIZER

_TABLE = "temp.text_occurrences"
# A place is row * 2^29 + (in the text, not the title) * 2^28 + the word's number: rows below 2^34, texts below 2^28 words.
_ROW_BITS, _COLUMN_BITS = 29, 28
_REMEMBERED = 4096  # terms


def phrase(term: str) -> str:
    """Return the FTS5 expression for one term."""
    return f'"{term}"'


def occurrences(database: Database, term: str) -> RowArray:
    """Return the rows of a term, ascending, each as often as it has the term. A term of several words is a phrase."""
    words = _words(_tokenizer_of(database), term)
    if not words:
        return np.empty(0, np.int64)
    if len(words) == 1:
        return _read(database, "doc", words[0])
    place = f"doc * {1 << _ROW_BITS} + (col = 'text') * {1 << _COLUMN_BITS} + offset"
    found = _read(database, place, words[0])
    for number, word in enumerate(words[1:], 1):
        there = _read(database, place, word) - number
        at = np.minimum(np.searchsorted(there, found), max(0, len(there) - 1))
        found = found[there[at] == found] if len(there) else there
    return found >> _ROW_BITS


def _read(database: Database, what: str, word: str) -> RowArray:
    database.execute(
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {_TABLE} USING fts5vocab(main, text_index, instance)"
    )
    # One text for all of them: made in C, with no other thread waiting. They come by row, column and place.
    (found,) = database.execute(
        f"SELECT group_concat({what}) FROM {_TABLE} WHERE term = ?", (word,)
    ).fetchone()
    return np.fromstring(found or "", np.int64, sep=",")


def _tokenizer_of(database: Database) -> str:
    (made,) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'text_index'").fetchone()
    found = re.search(r'tokenize\s*=\s*"([^"]*)"', made)
    return found[1] if found else TOKENIZER


class _Words:
    """Cuts and stems a term as FTS5 does it, by a table in memory."""

    def __init__(self, tokenizer: str) -> None:
        self._turn = Lock()
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.execute(f'CREATE VIRTUAL TABLE term USING fts5(text, tokenize="{tokenizer}")')
        self._connection.execute("CREATE VIRTUAL TABLE word USING fts5vocab(term, instance)")

    def of(self, term: str) -> tuple[str, ...]:
        with self._turn:
            self._connection.execute("INSERT INTO term (rowid, text) VALUES (1, ?)", (term,))
            found = self._connection.execute("SELECT term FROM word ORDER BY offset").fetchall()
            self._connection.execute("DELETE FROM term")
        return tuple(word for (word,) in found)


_cutter = cache(_Words)


@lru_cache(_REMEMBERED)
def _words(tokenizer: str, term: str) -> tuple[str, ...]:
    return _cutter(tokenizer).of(term)
