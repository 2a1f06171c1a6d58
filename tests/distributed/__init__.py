"""Indexes in shards: what tests of them share."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.data.records import ReadOptions
from embedkit.data.walking import WalkOptions
from embedkit.distributed.layout import receipt_path, shard_path
from embedkit.distributed.requests import ShardRequest
from embedkit.pipelines.options import BuildOptions
from embedkit.types import Computing
from indexes import Index
from tests.tiny import WORDS

Contents = tuple[
    list[tuple[Any, ...]], np.ndarray[Any, Any], list[tuple[Any, ...]]
]  # Any: SQLite's values, codes


def write_texts(path: Path, count: int, *, start: int = 0, seed: int = 0) -> Path:
    """Write JSON lines with ids, titles, metadata and texts of very different lengths."""
    drawn = random.Random(seed)
    rows = [
        {
            "id": f"doc-{number}",
            "title": drawn.choice(WORDS),
            "text": " ".join(drawn.choices(WORDS, k=drawn.choice((1, 5, 30, 200)))),
            "year": 2000 + number % 20,
        }
        for number in range(start, start + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def request(inputs: Sequence[Path | str], model: Path, **changes: object) -> ShardRequest:
    values: dict[str, object] = {
        "inputs": [str(each) for each in inputs],
        "reading": ReadOptions(),
        "walking": WalkOptions(kinds="any"),
        "building": BuildOptions(),
        "computing": Computing(device="cpu", precision="fp32"),
        "shards": 4,
        "threads": 1,
        "model": str(model),
    }
    return ShardRequest(**(values | changes))  # type: ignore[arg-type] # a test names the fields it wants


def contents(path: Path) -> Contents:
    """Return all that an index holds: documents with their passages; vectors as stored; the words of each passage with their places."""
    with Index.open(path, writable=True) as index:
        execute = index.database.execute
        documents = execute(
            "SELECT doc_id, title, text, metadata, content_hash, source, places, number, start, stop FROM documents "
            "LEFT JOIN passages USING (doc_key) ORDER BY doc_key, number"
        ).fetchall()
        codes = [segment.codes.copy() for segment in index.snapshot.dense]
        execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, text_index, instance)")
        rows = [row for (row,) in execute("SELECT row FROM passages ORDER BY row")]
        rank = {row: number for number, row in enumerate(rows)}
        found = execute("SELECT doc, col, offset, term FROM temp.words")
        words = sorted((rank[row], *rest) for row, *rest in found)
    empty = np.empty((0, index.settings.dimension), np.float32)
    return documents, np.concatenate(codes) if codes else empty, words


def joined(folder: Path, count: int) -> Contents:
    """Return what all shards hold together, as one index would."""
    documents: list[tuple[Any, ...]] = []
    words: list[tuple[Any, ...]] = []
    vectors, rows = [], 0
    for number in range(count):
        own, codes, terms = contents(shard_path(folder, number))
        documents += own
        words += [(rows + row, *rest) for row, *rest in terms]
        vectors.append(codes)
        rows += len(codes)
    return documents, np.concatenate(vectors), words


def hashes(folder: Path) -> list[str]:
    """Return the content hash of each shard, as its receipt says it."""
    found = sorted((folder / "receipts").glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8"))["content_hash"] for path in found]


def written_at(folder: Path, shard: int) -> int:
    """Return when a shard's receipt was written, so that one that was built again is told."""
    return receipt_path(folder, shard).stat().st_mtime_ns
