"""From candidate rows to hits: their documents, in order, each proved to be what was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from embedkit.errors import IndexFileError
from embedkit.records import Hit

from .database import Database, reading
from .documents import StoredPassage, read_passages
from .exact import Candidates
from .segment import RowArray
from .snapshot import Snapshot


def make_hits(
    database: Database, snapshot: Snapshot, found: Candidates, *, k: int, width: int, group: bool, part: str
) -> list[list[Hit]]:
    """Return up to k hits for each query, best first, ties by id and passage.

    Candidates that are as good as number `width` are looked up, with `group` the best passage of each document is kept,
    and `part` is what the score is called in `Hit.scores`.

    Raises:
        IndexFileError: a row has no passage, or text and vector do not belong together.
    """
    if not found.rows.shape[1]:
        return [[] for _ in found.rows]
    last = found.scores[:, min(width, found.rows.shape[1]) - 1 :][:, :1]
    wanted = (found.rows >= 0) & (found.scores >= last)  # (Q, K)
    rows = np.unique(found.rows[wanted])
    with reading(database.path):
        passages = read_passages(database, rows)
    _check_keys(snapshot, rows, passages, database)
    metadata: dict[int, dict[str, Any]] = {}  # Any: whatever JSON holds
    results = []
    for scores, of_query, mask in zip(found.scores, found.rows, wanted, strict=True):
        entries = [
            (-score, passages[row].doc_id, passages[row].number, row)
            for score, row in zip(scores[mask].tolist(), of_query[mask].tolist(), strict=True)
        ]
        hits: list[Hit] = []
        seen: set[str] = set()
        for negative, doc_id, number, row in sorted(entries):
            if group and doc_id in seen:
                continue
            seen.add(doc_id)
            stored, score = passages[row], -negative
            if row not in metadata:
                metadata[row] = json.loads(stored.metadata)
            hits.append(Hit(doc_id, score, stored.text, stored.title, metadata[row], number, {part: score}))
            if len(hits) == k:
                break
        results.append(hits)
    return results


def _check_keys(
    snapshot: Snapshot, rows: RowArray, passages: Mapping[int, StoredPassage], database: Database
) -> None:
    """Refuse rows whose vector and text do not belong together."""
    for row, key in zip(rows.tolist(), snapshot.keys(rows).tolist(), strict=True):
        if row not in passages or passages[row].key != key:
            what = "has no passage" if row not in passages else "belongs to another text than its vector"
            folder = database.path.parent
            raise IndexFileError(f"{folder}: row {row} {what}. Run: embedkit index repair --index {folder}")
