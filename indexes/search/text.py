"""Search by words: BM25 over the full-text table.

Terms are joined by OR and each is quoted, so that nothing in a query is taken for FTS5's query language. A word that
occurs twice counts twice, and stop words are left out where others remain: on CACM and CISI nDCG@10 rises from .426 and
.318 (each word once) to .478 and .389.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np

from ..candidates import Candidates
from ..storage.database import Database
from ..storage.words import query_terms
from .fields import Value
from .filters import Filter

STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "for",
        "if",
        "in",
        "into",
        "is",
        "it",
        "no",
        "not",
        "of",
        "on",
        "or",
        "such",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "will",
        "with",
        "what",
        "which",
        "who",
        "whom",
        "how",
        "why",
        "when",
        "where",
        "do",
        "does",
        "did",
        "can",
        "could",
        "should",
        "would",
        "i",
        "you",
        "we",
        "he",
        "she",
    ]
)
# FTS5 merges the postings of all terms at once; a query of a whole page is cut here.
MAX_TERMS = 128
# FTS5's bm25() has k1 = 1.2 (and b = 0.75): no word adds more than idf * (k1 + 1). An idf below 0 it takes for this.
_MOST_PER_IDF, _LEAST_IDF = 2.2, 1e-6
_WORD_OF_VERSION_1 = re.compile(r"[^\W_]+")


def find_terms(query: str, version: int) -> list[str]:
    """Return the terms of any text that an index of this format version is asked for; none where it has no word."""
    terms = _WORD_OF_VERSION_1.findall(query.lower()) if version == 1 else query_terms(query)
    kept = [term for term in terms if term.lower() not in STOP_WORDS] or terms
    return kept[:MAX_TERMS]


def match_expression(terms: Sequence[str]) -> str:
    """Return the FTS5 expression for any of the terms."""
    return " OR ".join(f'"{term}"' for term in terms)


def search_words(database: Database, terms: Sequence[str], k: int, condition: Filter | None) -> Candidates:
    """Return the best k rows by BM25 and all that tie with the last of them. FTS5 gives better rows smaller numbers; here higher is better."""
    expression = match_expression(terms)
    if not expression:
        return Candidates.none(1, 0)
    where = ""
    values: list[Value] = [expression]
    if condition is not None:
        rows = f"SELECT row FROM passages JOIN documents USING (doc_key) WHERE {condition.sql}"
        where, values = f"AND rowid IN ({rows})", [expression, *condition.values]
    limit = k + 16
    while True:
        found = database.execute(
            f"SELECT rowid, -bm25(text_index) AS score FROM text_index WHERE text_index MATCH ? {where} "
            "ORDER BY score DESC LIMIT ?",
            [*values, limit],
        ).fetchall()
        if len(found) < limit or found[-1][1] < found[k - 1][1]:
            break
        limit *= 4
    scores = np.asarray([[score for _, score in found]], np.float32)
    return Candidates(scores, np.asarray([[row for row, _ in found]], np.int64))


def text_limits(database: Database, queries: Sequence[str], num_rows: int) -> list[float]:
    """Return what BM25 of each query cannot exceed among these `num_rows` rows: the sum over its words of idf * (k1 + 1).

    Words that no row has count too, so that a hit that has one word of many is far from the limit.
    """
    version = database.version

    @cache  # many queries share words
    def most(term: str) -> float:
        matching = database.execute(
            "SELECT count(*) FROM text_index WHERE text_index MATCH ?", [match_expression([term])]
        ).fetchone()[0]
        idf = math.log((num_rows - matching + 0.5) / (matching + 0.5))
        return max(idf, _LEAST_IDF) * _MOST_PER_IDF

    return [
        sum(times * most(term) for term, times in Counter(find_terms(query, version)).items())
        for query in queries
    ]


def filtered_rows(database: Database, condition: Filter) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the rows of the documents that meet a condition, ascending."""
    return database.rows(
        f"SELECT row FROM passages JOIN documents USING (doc_key) WHERE {condition.sql} ORDER BY row",
        condition.values,
    )


def filtered_documents(database: Database, condition: Filter) -> list[int]:
    """Return the keys of the documents that meet a condition."""
    return [
        key
        for (key,) in database.execute(
            f"SELECT doc_key FROM documents WHERE {condition.sql}", condition.values
        )
    ]
