"""BM25 of one shard by the statistics of all: its scores are, to the last bit, those of one index of all documents.

FTS5's own bm25() knows the frequencies and lengths of its own table alone. Here how often a row has a term is read from the text index
by a table of its occurrences (fts5vocab, which only reads), how long a row is from where FTS5 notes it, and both are put together by the
operations on doubles that bm25() does, in its order. It takes no longer than bm25(), which looks up each length by itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.errors import IndexFileError

from ..candidates import Candidates
from ..storage.codes import RowArray
from ..storage.database import Database
from .occurrences import occurrences, phrase

Doubles = npt.NDArray[np.float64]

# As FTS5's bm25() has them; an idf that is not above 0 it takes for the last of these.
_K1, _B, _LEAST_IDF = 1.2, 0.75, 1e-6
_NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True)
class TextStatistics:
    """What BM25 needs to know of a collection: its rows, their words in all, and how many rows have each term."""

    rows: int
    words: int
    counts: Mapping[str, int]

    @classmethod
    def total(cls, parts: Iterable[TextStatistics]) -> TextStatistics:
        """Add up those of shards."""
        rows = words = 0
        counts: dict[str, int] = {}
        for part in parts:
            rows, words = rows + part.rows, words + part.words
            for term, count in part.counts.items():
                counts[term] = counts.get(term, 0) + count
        return cls(rows, words, counts)

    def idf(self, term: str) -> float:
        """Return the inverse document frequency of a term, computed as FTS5 does it."""
        having = self.counts[term]
        idf = math.log((self.rows - having + 0.5) / (having + 0.5))
        return idf if idf > 0 else _LEAST_IDF

    def limit(self, terms: Iterable[str]) -> float:
        """Return what the BM25 of a query cannot exceed: the sum over its terms of idf * (k1 + 1)."""
        return sum(self.idf(term) * (_K1 + 1) for term in terms)


def text_statistics(database: Database, terms: Iterable[str]) -> TextStatistics:
    """Count the rows of the text index, their words, and the rows that have each of some terms.

    Raises:
        IndexFileError: the text index is damaged.
    """
    rows, words = _totals(database)
    counts = {
        term: int(
            database.execute(
                "SELECT count(*) FROM text_index WHERE text_index MATCH ?", [phrase(term)]
            ).fetchone()[0]
        )
        for term in set(terms)
    }
    return TextStatistics(rows, words, counts)


class RowLengths:
    """How many words rows have, looked up once."""

    def __init__(self, database: Database, next_row: int) -> None:
        """Take the database of a snapshot whose rows have numbers below `next_row`."""
        self._database = database
        self._known = np.full(next_row, -1, np.int32)

    def of(self, rows: RowArray) -> RowArray:
        """Return the lengths of distinct rows, ascending.

        Raises:
            IndexFileError: the text index does not know one.
        """
        missing = rows[self._known[rows] < 0]
        if 4 * len(missing) > len(self._known):  # a walk through all of them is faster
            self._read("", ())
        elif len(missing):
            self._read("WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(missing.tolist()),))
        lengths = self._known[rows].astype(np.int64)
        if len(rows) and lengths.min() < 0:
            folder = self._database.path.parent
            raise IndexFileError(
                f"{folder}: the text index does not know the length of row {rows[lengths < 0][0]}. "
                f"Run: embedkit index repair {folder}"
            )
        return lengths

    def _read(self, where: str, values: Sequence[str]) -> None:
        # One text for all rows: made in C, with no other thread waiting.
        ids, sizes = self._database.execute(
            "SELECT group_concat(id), group_concat(hex(sz), '') "
            f"FROM (SELECT id, sz FROM text_index_docsize {where} ORDER BY id)",
            values,
        ).fetchone()
        if ids is not None:
            numbers = _varints(bytes.fromhex(sizes)).reshape(-1, 2)  # of the title and of the text
            self._known[_integers(ids)] = numbers.sum(axis=1)


class SharedText:
    """The rows of one index by the words of a query, by the statistics of all shards."""

    def __init__(
        self, database: Database, lengths: RowLengths, statistics: TextStatistics, allowed: RowArray | None
    ) -> None:
        """`allowed` are the rows that a filter lets pass, ascending; None for all."""
        self._database, self._lengths, self._statistics, self._allowed = (
            database,
            lengths,
            statistics,
            allowed,
        )

    def search(self, terms: Sequence[str], k: int) -> Candidates:
        """Return the best k rows and all that tie with the last of them, best first: (1, K). Terms may come several times."""
        found = {term: self._rows_with(term) for term in dict.fromkeys(terms)}
        rows = _distinct(
            np.sort(np.concatenate([*(some for some, _ in found.values()), _NO_ROWS]), kind="stable")
        )
        if not len(rows):
            return Candidates.none(1, 0)
        scores = self._scores(rows, terms, found).astype(np.float32)
        kth = np.partition(scores, max(0, len(rows) - k))[max(0, len(rows) - k)]
        best = np.flatnonzero(scores >= kth)
        best = best[np.argsort(-scores[best], kind="stable")]
        return Candidates(scores[best][None], rows[best][None])

    def _rows_with(self, term: str) -> tuple[RowArray, RowArray]:
        """Return the rows that have a term, ascending, and how often."""
        places = occurrences(self._database, term)
        rows = _distinct(places)
        times = np.diff(np.append(np.searchsorted(places, rows), len(places)))
        if self._allowed is not None:
            kept = _among(rows, self._allowed)
            rows, times = rows[kept], times[kept]
        return rows, times

    def _scores(
        self, rows: RowArray, terms: Sequence[str], found: Mapping[str, tuple[RowArray, RowArray]]
    ) -> Doubles:
        mean = self._statistics.words / self._statistics.rows
        saturation = _K1 * (1 - _B + _B * self._lengths.of(rows).astype(np.float64) / mean)
        scores = np.zeros(len(rows))
        for term in terms:
            some, times = found[term]
            at = np.searchsorted(rows, some)
            scores[at] += self._statistics.idf(term) * ((times * (_K1 + 1)) / (times + saturation[at]))
        return scores


def _totals(database: Database) -> tuple[int, int]:
    """Return the rows of the text index and the words of all of them."""
    found = database.execute("SELECT block FROM text_index_data WHERE id = 1").fetchone()
    numbers = _wide_varints(b"" if found is None else found[0])
    if len(numbers) not in (0, 3):
        raise IndexFileError(
            f"{database.path.parent}: the text index does not say how many words it has. "
            f"Run: embedkit index repair {database.path.parent}"
        )
    return (numbers[0], sum(numbers[1:])) if numbers else (0, 0)


def _wide_varints(data: bytes) -> list[int]:
    """Read numbers of any size as SQLite writes them: all eight bits of a ninth byte count."""
    numbers, value, length = [], 0, 0
    for byte in data:
        length += 1
        value = value << 8 | byte if length == 9 else value << 7 | byte & 0x7F
        if byte < 0x80 or length == 9:
            numbers.append(value)
            value = length = 0
    return numbers


def _integers(text: str) -> RowArray:
    return np.fromstring(text, np.int64, sep=",")


def _varints(data: bytes) -> RowArray:
    """Read numbers below 2^28 as SQLite writes them: seven bits a byte, the highest first, the last byte below 128."""
    found = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(found < 0x80)
    starts = np.append(0, ends[:-1] + 1) if len(ends) else ends
    numbers = np.zeros(len(ends), np.int64)
    for at in range(4):
        there = starts + at <= ends
        places = starts[there] + at
        numbers[there] = numbers[there] << 7 | (found[places] & 0x7F)
    return numbers


def _distinct(rows: RowArray) -> RowArray:
    """Return ascending rows, each once; np.unique would load numpy.ma, which takes long from a cold shell."""
    return rows[np.append(True, rows[1:] != rows[:-1])] if len(rows) else rows


def _among(rows: RowArray, allowed: RowArray) -> npt.NDArray[np.bool_]:
    """Say which rows are among some that are ascending."""
    if not len(allowed):
        return np.zeros(len(rows), bool)
    places = np.minimum(np.searchsorted(allowed, rows), len(allowed) - 1)
    return np.asarray(allowed[places] == rows)
