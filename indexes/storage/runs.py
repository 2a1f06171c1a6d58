"""What a build remembers of its run: which ids have come, so that one that comes twice and those that are gone are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from .database import Database


def begin_run(database: Database) -> None:
    """Forget which ids an earlier run of this process has seen. They are kept on disk, not in memory."""
    database.execute("PRAGMA temp_store = FILE")
    database.execute("DROP TABLE IF EXISTS temp.seen")
    database.execute(
        "CREATE TEMP TABLE seen (doc_id TEXT PRIMARY KEY, number INTEGER, place TEXT) WITHOUT ROWID"
    )


def find_duplicate(
    database: Database, first_number: int, places: Sequence[tuple[str, str]]
) -> tuple[str, str, str] | None:
    """Note (doc_id, place) pairs; return (doc_id, first place, second) of an id that came before in this run.

    The pairs are numbered from `first_number` on, so that one with an earlier number is told from itself.
    """
    numbered = [(doc_id, number, place) for number, (doc_id, place) in enumerate(places, first_number)]
    added = database.execute(
        "INSERT OR IGNORE INTO seen SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?)",
        (json.dumps(numbered),),
    )
    if added.rowcount == len(places):
        return None
    statement = "SELECT number, place FROM seen WHERE doc_id = ?"
    for doc_id, number, place in numbered:
        earlier, first = database.execute(statement, (doc_id,)).fetchone()
        if earlier != number:
            return doc_id, first, place
    raise ValueError(f"ids were noted twice from number {first_number} on")


def vanished_documents(database: Database, within: Callable[[str], bool]) -> list[int]:
    """Return the keys of documents whose source is within a scope, and which did not come in this run."""
    stored = [source for (source,) in database.execute("SELECT DISTINCT source FROM documents")]
    found = database.execute(
        "SELECT doc_key FROM documents WHERE source IN (SELECT value FROM json_each(?)) "
        "AND doc_id NOT IN (SELECT doc_id FROM seen) ORDER BY doc_key",
        (json.dumps([source for source in stored if within(source)]),),
    )
    return [key for (key,) in found]
