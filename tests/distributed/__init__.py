"""Indexes in shards: what tests of them share."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.data.records import ReadOptions
from embedkit.data.walking import WalkOptions
from embedkit.distributed.executor import Done, Event
from embedkit.distributed.layout import receipt_path, shard_path
from embedkit.distributed.requests import ShardRequest
from embedkit.distributed.shard import ShardBuilder
from embedkit.pipelines.options import BuildOptions
from embedkit.types import Computing
from indexes import Index

Contents = tuple[
    list[tuple[Any, ...]], np.ndarray[Any, Any], list[tuple[Any, ...]]
]  # Any: SQLite's values, codes


def write_texts(path: Path, count: int, *, start: int = 0, seed: int = 0) -> Path:
    """Write JSON lines with ids, titles, metadata and texts of very different lengths."""
    from tests.tiny import (
        WORDS,
    )  # with torch, which processes that are started by tests of kills can do without

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


def write_corpus(folder: Path) -> list[Path]:
    """Write two files of JSON lines, 300 documents in all."""
    return [write_texts(folder / "a.jsonl", 220), write_texts(folder / "b.jsonl", 80, start=220, seed=1)]


class InThisProcess:
    """An executor whose one worker is this process itself: it builds a shard when it is asked what has become of it."""

    def __init__(self, folder: Path) -> None:
        self._builder = ShardBuilder(folder)
        self._given: list[int] = []

    @property
    def room(self) -> int:
        return 1 - len(self._given)

    @property
    def workers(self) -> int:
        return 1

    def submit(self, shard: int, *, avoid: str = "") -> None:
        self._given.append(shard)

    def as_completed(self, seconds: float) -> Iterator[Event]:
        self._builder.prepare()
        while self._given:
            yield Done("this process", self._builder.build(self._given.pop(), lambda progress: None))

    def cancel(self) -> None:
        """There is nothing that goes on by itself."""


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
