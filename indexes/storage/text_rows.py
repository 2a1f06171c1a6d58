"""What the text index holds of each passage, a document at a time.

It is what the view that the index names as its content says, to the letter: FTS5 forgets a row only when told what it held.
But the view has SQLite read a whole document for each of its passages: 16 GB for the 4,000 passages of a book of 4 MB.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from .schema import TEXT_CONTENT
from .words import index_words

TextRow = tuple[int, str, str]  # row, title, text
Execute = Callable[[str, Sequence[Any]], sqlite3.Cursor]  # Any: SQLite's values


def text_rows(
    version: int, title: str, text: str, places: Iterable[tuple[int, int, int]]
) -> Iterator[TextRow]:
    """Yield the row of the text index for each (row, start, stop) of one document's passages."""
    words = index_words if TEXT_CONTENT[version] == "passage_words" else str
    title = words(title)
    end = text.find("\0")  # SQLite's substr ends there
    readable = text if end < 0 else text[:end]
    for row, start, stop in places:
        yield row, title, words(text if stop == -1 else readable[start:stop])


def stored_text_rows(execute: Execute, version: int, doc_keys: str | None = None) -> Iterator[TextRow]:
    """Yield the rows of the text index for documents that are stored: for all, or for a JSON list of keys."""
    chosen = "" if doc_keys is None else "WHERE doc_key IN (SELECT value FROM json_each(?))"
    places = execute(
        f"SELECT doc_key, row, start, stop FROM passages {chosen} ORDER BY doc_key",
        () if doc_keys is None else (doc_keys,),
    )
    for doc_key, of_document in groupby(places, key=itemgetter(0)):
        found = execute("SELECT title, text FROM documents WHERE doc_key = ?", (doc_key,)).fetchone()
        if found is not None:
            title, text = found
            yield from text_rows(version, title, text, (place[1:] for place in of_document))
