"""A store in memory: the seam's fake, which passes the same suite as the real ones; and an oracle for filters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from embedkit.connectors.store import Hnsw, Key, StoredAs, StoreRow, TableLayout, Vectors
from embedkit.errors import StoreError
from indexes.candidates import Scorer
from indexes.search.fields import Field
from indexes.search.syntax import And, Compare, Contains, IsNull, Node, Not, Or
from indexes.storage.matching import path_glob, text_matches


class MemoryServer:
    """What lasts when a connection is closed; `fail_after` rows more, the server goes away."""

    def __init__(self) -> None:
        self.info: str | None = None
        self.rows: dict[Key, tuple[StoreRow, Vectors]] = {}
        self.busy = False
        self.fail_after: int | None = None
        self.upserted = 0


class MemoryStore:
    storages: Sequence[StoredAs] = ("float32", "float16")
    has_text = True

    def __init__(self, server: MemoryServer, place: str = "memory://here?table=docs") -> None:
        self.place, self.server = place, server

    def read_info(self) -> str | None:
        return self.server.info

    def create(self, layout: TableLayout, info: str) -> None:
        self.server.info = info

    def write_info(self, info: str) -> None:
        self.server.info = info

    @contextmanager
    def writing(self) -> Iterator[None]:
        if self.server.busy:
            raise StoreError(f"{self.place}: another process is pushing to it")
        self.server.busy = True
        try:
            yield
        finally:
            self.server.busy = False

    def digests(self, keys: Sequence[Key]) -> dict[Key, str]:
        return {key: self.server.rows[key][0].digest for key in keys if key in self.server.rows}

    def upsert(self, rows: Sequence[StoreRow], vectors: Vectors, *, new: bool = False) -> None:
        assert not new or not any(row.key in self.server.rows for row in rows)
        if self.server.fail_after is not None:
            if self.server.fail_after < len(rows):
                raise StoreError(f"{self.place}: the server went away")
            self.server.fail_after -= len(rows)
        self.server.upserted += len(rows)
        for row, vector in zip(rows, vectors, strict=True):
            self.server.rows[row.key] = (row, vector.copy())

    def delete(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self.server.rows.pop(key, None)

    def scan_digests(self) -> Iterator[dict[Key, str]]:
        if self.server.rows:
            yield {key: row.digest for key, (row, _) in self.server.rows.items()}

    def scan(self) -> Iterator[tuple[list[StoreRow], Vectors]]:
        pairs = list(reversed(self.server.rows.values()))  # a store promises no order
        for start in range(0, len(pairs), 7):
            part = pairs[start : start + 7]
            yield [row for row, _ in part], np.stack([vector for _, vector in part])

    def fetch(self, keys: Sequence[Key]) -> dict[Key, StoreRow]:
        return {key: self.server.rows[key][0] for key in keys if key in self.server.rows}

    def vectors(self, keys: Sequence[Key]) -> dict[Key, Vectors]:
        return {key: self.server.rows[key][1] for key in keys if key in self.server.rows}

    def count(self, where: Node | None = None) -> int:
        return len(self._passing(where))

    def build_ann(self, layout: TableLayout, hnsw: Hnsw) -> str:
        return ""

    def search(
        self, query: Vectors, *, layout: TableLayout, k: int, where: Node | None, ef: int | None
    ) -> list[tuple[Key, float]]:
        rows = self._passing(where)
        if not rows:
            return []
        vectors = np.stack([vector for _, vector in rows])
        scores = Scorer(layout.metric).pairs(query[None], vectors[None])[0].tolist()
        pairs = [(row.key, score) for (row, _), score in zip(rows, scores, strict=True)]
        return sorted(pairs, key=lambda pair: -pair[1])[:k]

    def search_text(self, query: str, *, k: int, where: Node | None) -> list[tuple[Key, float]]:
        words = _words(query)
        found = []
        for row, _ in self._passing(where):
            share = len(words & _words(f"{row.title} {row.text}")) / max(1, len(words))
            if share:
                found.append((row.key, share))
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]

    def text_limit(self, query: str) -> float:
        return 1.0 if _words(query) else 0.0

    def num_bytes(self) -> int:
        return sum(vector.nbytes + len(row.record) for row, vector in self.server.rows.values())

    def close(self) -> None:
        pass

    def _passing(self, where: Node | None) -> list[tuple[StoreRow, Vectors]]:
        return [pair for pair in self.server.rows.values() if where is None or passes(where, pair[0])]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def passes(node: Node, row: StoreRow) -> bool:
    """Say whether a row passes a condition, as an index would have it."""
    if isinstance(node, And):
        return all(passes(part, row) for part in node.parts)
    if isinstance(node, Or):
        return any(passes(part, row) for part in node.parts)
    if isinstance(node, Not):
        return not passes(node.part, row)
    value = _value(node.field, row)
    if isinstance(node, IsNull):
        return value is None
    if isinstance(node, Compare):
        return _compares(value, node.operator, node.literal)
    if isinstance(node, Contains):
        if isinstance(value, list):
            return any(_compares(item, "=", node.literal) for item in value)
        return _compares(value, "=", node.literal)
    function = path_glob if node.function == "path_glob" else text_matches
    return isinstance(value, str) and function(value, node.pattern)


def _value(field: Field, row: StoreRow) -> Any:  # Any: whatever JSON holds
    if not field.is_metadata:
        return {"doc_id": row.key.doc_id, "title": row.title, "text": row.text, "source": row.source}[
            field.column
        ]
    value = json.loads(row.metadata)
    for step in field.path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _compares(value: Any, operator: str, literal: str | int | float | bool) -> bool:
    kinds: tuple[type, ...] = (
        (bool,) if isinstance(literal, bool) else (str,) if isinstance(literal, str) else (int, float)
    )
    if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(literal, bool)):
        return False
    if operator == "LIKE":
        pattern = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in str(literal))
        return re.fullmatch(pattern, str(value), re.IGNORECASE | re.ASCII | re.DOTALL) is not None
    other: Any = literal  # Any: as above
    if isinstance(value, str):
        value, other = value.encode(), str(literal).encode()
    tests = {
        "=": value == other,
        "!=": value != other,
        "<": value < other,
        "<=": value <= other,
        ">": value > other,
        ">=": value >= other,
    }
    return bool(tests[operator])
