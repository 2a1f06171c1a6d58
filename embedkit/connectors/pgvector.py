"""PostgreSQL with pgvector: one table for the rows, one beside it for what embedkit knows of them.

Rows go in by COPY and one INSERT … ON CONFLICT a batch. A push holds an advisory lock, which ends with its connection. Words are searched by a
`tsvector` of title and text: a score is the share of the query's words that a passage has, the more the more often (`ts_rank` of an OR, all
weights 1), from 0 to 1. That is not BM25: it knows nothing of how rare a word is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from embedkit.connectors.pgvector_filters import to_sql
from embedkit.connectors.store import (
    BATCH_ROWS,
    Hnsw,
    Key,
    StoredAs,
    StoreRow,
    TableLayout,
    Vectors,
    not_ours,
)
from embedkit.connectors.urls import StoreUrl
from embedkit.errors import StoreError
from embedkit.extras import load_extra
from indexes.search.syntax import Node

_COLUMNS = "doc_id, passage, title, body, source, metadata, record, digest"
_TYPES = ("text", "int4", "text", "text", "text", "text", "text", "text")
_OPERATORS = {
    "cosine": ("<=>", "vector_cosine_ops"),
    "dot": ("<#>", "vector_ip_ops"),
    "l2": ("<->", "vector_l2_ops"),
}
_MAX_HNSW = {"float32": 2000, "float16": 4000}  # dimensions that pgvector's HNSW takes
_MAX_EF = 1000
_EF = 100
_TEXT_CHARS = 200_000  # of a passage, that are searched by words: a tsvector holds 1 MB
_LANGUAGE = "english"
_IN_LINE_BYTES = (
    6000  # of a vector that is kept in its row: a page holds 8 kB, and what lies elsewhere is read one by one
)


class PgVector:
    """One table of a database; as `embedkit.connectors.store.Store`."""

    storages: Sequence[StoredAs] = ("float32", "float16")
    has_text = True

    def __init__(self, url: StoreUrl) -> None:
        """Connect; nothing is made.

        Raises:
            StoreError: the server cannot be reached, refuses, or has an older pgvector than 0.8.
            MissingExtraError: psycopg is not installed.
        """
        self._client: Any = load_extra("pgvector", purpose="PostgreSQL")  # Any: a module
        self.place, self._table, self._info = url.place, f'"{url.table}"', f'"{url.table}_embedkit"'
        self._name = url.table
        self._given = url.options.get("language")
        self._language = self._given or _LANGUAGE
        self._connection = self._client.Connection(url.address, url.place)
        self._half = False
        self._known = False
        try:
            self._learn()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def _learn(self) -> None:
        found = self._execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        if not found:
            return
        version = tuple(int(part) for part in found[0][0].split(".")[:2])
        if version < (0, 8):
            raise StoreError(
                f"{self.place}: pgvector {found[0][0]}; 0.8 or newer is needed. Update it with: ALTER EXTENSION vector UPDATE"
            )
        self._known = self._connection.know_vectors()

    def _execute(
        self, statement: str, values: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:  # Any: SQL's values
        rows: list[tuple[Any, ...]] = self._connection.execute(statement, values)
        return rows

    # What the table is

    def read_info(self) -> str | None:
        there = self._columns(self._name)
        beside = self._columns(f"{self._name}_embedkit")
        if beside and beside.keys() != {"info", "language"}:
            raise StoreError(not_ours(self.place, f"{self._name}_embedkit", list(beside)))
        if not there:
            return None
        if not beside or not {*_COLUMNS.split(", "), "embedding"} <= there.keys():
            raise StoreError(not_ours(self.place, self._name, list(there)))
        self._half = there["embedding"] == "halfvec"
        found = self._execute(f"SELECT info, language FROM {self._info}")
        if not found:
            raise StoreError(
                f"{self.place}: the table {self._name}_embedkit is empty, which says what was pushed. Push under another name"
            )
        info, language = found[0]
        if self._given not in (None, language):
            raise StoreError(
                f"{self.place}: its words were pushed as {language}, and language={self._given} is asked for. Leave it out of the URL"
            )
        self._language = language
        return str(info)

    def _columns(self, table: str) -> dict[str, str]:
        found = self._execute(
            "SELECT attname::text, typname::text FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (f'"{table}"',),
        )
        return dict(found)

    def create(self, layout: TableLayout, info: str) -> None:
        kind = "halfvec" if layout.storage == "float16" else "vector"
        with self._connection.transaction():
            if not self._known:
                self._execute("CREATE EXTENSION IF NOT EXISTS vector")
                self._learn()
            self._execute(
                f'CREATE TABLE {self._table} (doc_id text COLLATE "C" NOT NULL, passage int NOT NULL, title text NOT NULL, '
                "body text NOT NULL, source text NOT NULL, metadata jsonb NOT NULL, record text NOT NULL, digest text NOT NULL, "
                f"embedding {kind}({layout.dimension}) NOT NULL, words tsvector GENERATED ALWAYS AS "
                f"(to_tsvector({self._config()}, left(title || ' ' || body, {_TEXT_CHARS}))) STORED, PRIMARY KEY (doc_id, passage))"
            )
            if layout.dimension * 4 <= _IN_LINE_BYTES:
                self._execute(f"ALTER TABLE {self._table} ALTER COLUMN embedding SET STORAGE PLAIN")
            self._execute(
                f"CREATE TABLE IF NOT EXISTS {self._info} (info text NOT NULL, language text NOT NULL)"
            )
            self._execute(f"DELETE FROM {self._info}")
            self._execute(f"INSERT INTO {self._info} VALUES (%s, %s)", (info, self._language))
        self._half = layout.storage == "float16"

    def _config(self) -> str:
        if not self._language.isidentifier():
            raise StoreError(
                f"{self.place}: the language is {self._language!r}; wanted is a name such as german or simple"
            )
        return f"'{self._language}'::regconfig"

    def write_info(self, info: str) -> None:
        self._execute(f"UPDATE {self._info} SET info = %s", (info,))

    @contextmanager
    def writing(self) -> Iterator[None]:
        key = "hashtextextended(current_schema() || '.' || %s, 8207)"
        if self._execute(f"SELECT pg_try_advisory_lock({key})", (self._name,)) != [(True,)]:
            holder = self._execute(
                "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
                f"AND (classid::bigint << 32 | objid::bigint) = {key}",
                (self._name,),
            )
            who = holder[0][0] if holder and holder[0][0] else "another process"
            raise StoreError(
                f"{self.place}: {who} is pushing to it; a table has one push at a time. Wait for it to end, or stop it"
            )
        try:
            yield
        finally:
            self._connection.unlock(f"SELECT pg_advisory_unlock({key})", (self._name,))

    # Rows

    def digests(self, keys: Sequence[Key]) -> dict[Key, str]:
        found = self._execute(
            f"SELECT doc_id, passage, digest FROM {self._table} JOIN {_WANTED} USING (doc_id, passage)",
            _of(keys),
        )
        return {Key(doc_id, passage): digest for doc_id, passage, digest in found}

    def upsert(self, rows: Sequence[StoreRow], vectors: Vectors, *, new: bool = False) -> None:
        values = self._client.to_values(vectors, half=self._half)
        self._refuse_nul(rows)
        kind = "halfvec" if self._half else "vector"
        with self._connection.transaction():
            self._execute(
                "CREATE TEMPORARY TABLE embedkit_incoming (doc_id text, passage int, title text, body text, source text, "
                f"metadata text, record text, digest text, embedding {kind}) ON COMMIT DROP"
            )
            self._connection.copy(
                "embedkit_incoming",
                (*_TYPES, kind),
                ((*_values(row), value) for row, value in zip(rows, values, strict=True)),
            )
            named = f"{_COLUMNS}, embedding"
            updated = ", ".join(f"{name} = excluded.{name}" for name in named.split(", ")[2:])
            self._execute(
                f"INSERT INTO {self._table} ({named}) SELECT {named.replace('metadata', 'metadata::jsonb')} "
                f"FROM embedkit_incoming ON CONFLICT (doc_id, passage) DO UPDATE SET {updated}"
            )

    def _refuse_nul(self, rows: Sequence[StoreRow]) -> None:
        for row in rows:
            if "\0" in row.key.doc_id or "\0" in row.source:
                raise StoreError(
                    f"{self.place}: the id or source of {row.key.doc_id!r} holds the character NUL, which PostgreSQL cannot store. "
                    "Rename the document"
                )

    def delete(self, keys: Sequence[Key]) -> None:
        self._execute(
            f"DELETE FROM {self._table} AS there USING {_WANTED} "
            "WHERE there.doc_id = wanted.doc_id AND there.passage = wanted.passage",
            _of(keys),
        )

    def scan_digests(self) -> Iterator[dict[Key, str]]:
        for rows in self._connection.stream(
            f"SELECT doc_id, passage, digest FROM {self._table}", 8 * BATCH_ROWS
        ):
            yield {Key(doc_id, passage): digest for doc_id, passage, digest in rows}

    def scan(self) -> Iterator[tuple[list[StoreRow], Vectors]]:
        for rows in self._connection.stream(f"SELECT {self._selected} FROM {self._table}", BATCH_ROWS):
            yield [_row(values[:-1]) for values in rows], self._vectors([values[-1] for values in rows])

    @property
    def _selected(self) -> str:
        send = "halfvec_send" if self._half else "vector_send"
        return f"{_COLUMNS.replace('metadata', 'metadata::text')}, {send}(embedding)"

    def _vectors(self, values: Sequence[bytes]) -> Vectors:
        vectors: Vectors = self._client.from_values(values, 0, half=self._half)
        return vectors

    def fetch(self, keys: Sequence[Key]) -> dict[Key, StoreRow]:
        columns = _COLUMNS.replace("metadata", "metadata::text")
        found = self._execute(
            f"SELECT {columns} FROM {self._table} JOIN {_WANTED} USING (doc_id, passage)", _of(keys)
        )
        rows = map(_row, found)
        return {row.key: row for row in rows}

    def vectors(self, keys: Sequence[Key]) -> dict[Key, Vectors]:
        found = self._execute(
            f"SELECT {self._selected} FROM {self._table} JOIN {_WANTED} USING (doc_id, passage)", _of(keys)
        )
        vectors = self._vectors([values[-1] for values in found])
        return {Key(*values[:2]): vector for values, vector in zip(found, vectors, strict=True)}

    def count(self, where: Node | None = None) -> int:
        sql, values = _where(where)
        return int(self._execute(f"SELECT count(*) FROM {self._table} WHERE {sql}", values)[0][0])

    def num_bytes(self) -> int:
        return int(self._execute("SELECT pg_total_relation_size(%s::regclass)", (self._table,))[0][0])

    # Search

    def build_ann(self, layout: TableLayout, hnsw: Hnsw) -> str:
        self._execute(
            f'CREATE INDEX IF NOT EXISTS "{self._name}_embedkit_words" ON {self._table} USING gin (words)'
        )
        name, most = f"{self._name}_embedkit_hnsw", _MAX_HNSW[layout.storage]
        wanted = (
            f"m={hnsw.m},ef_construction={hnsw.ef_construction}"
            if hnsw.m and layout.dimension <= most
            else ""
        )
        found = self._execute(
            "SELECT array_to_string(reloptions, ',') FROM pg_class WHERE oid = to_regclass(%s)",
            (f'"{name}"',),
        )
        note = ""
        if (found[0][0] if found else "") != wanted:
            operators = _OPERATORS[layout.metric][1]
            operators = operators.replace("vector", "halfvec") if layout.storage == "float16" else operators
            self._connection.notices.clear()
            with self._connection.transaction():
                self._execute(f'DROP INDEX IF EXISTS "{name}"')
                if wanted:
                    self._execute(
                        f'CREATE INDEX "{name}" ON {self._table} USING hnsw (embedding {operators}) WITH ({wanted})'
                    )
            note = self._about_memory()
        self._execute(f"ANALYZE {self._table}")
        if hnsw.m and not wanted:
            return (
                f"pgvector's HNSW takes {most:,} dimensions of {layout.storage}, and these vectors have {layout.dimension:,}: "
                "searches are exact, and read every vector"
            )
        return note

    def _about_memory(self) -> str:
        """Say it where the graph was built outside of memory, which takes many times as long."""
        found = (re.search(_NO_ROOM, notice) for notice in self._connection.notices)
        if (outgrown := next(filter(None, found), None)) is None:
            return ""
        memory = self._execute("SHOW maintenance_work_mem")[0][0]
        return (
            f"the server's maintenance_work_mem, {memory}, held the graph of {int(outgrown[1]):,} rows alone, and the others took much longer. "
            "Raise it there, or for a push by options=-c%20maintenance_work_mem=2GB in the URL"
        )

    def search(
        self, query: Vectors, *, layout: TableLayout, k: int, where: Node | None, ef: int | None
    ) -> list[tuple[Key, float]]:
        operator = _OPERATORS[layout.metric][0]
        sql, values = _where(where)
        (value,) = self._client.to_values(query[None], half=self._half)
        statement = (
            f"SELECT doc_id, passage, embedding {operator} %s AS distance FROM {self._table} WHERE {sql} "
            "ORDER BY distance LIMIT %s"
        )
        with self._connection.transaction():
            self._execute(f"SET LOCAL hnsw.ef_search = {min(_MAX_EF, max(k, ef or _EF))}")
            self._execute(
                "SET LOCAL hnsw.iterative_scan = strict_order"
            )  # else a filter may leave fewer than k
            found = self._execute(statement, (value, *values, k))
            if where is not None and len(found) < k:  # a scan of the graph ends at 20,000 rows: look at all
                self._execute("SET LOCAL enable_indexscan = off")
                found = self._execute(statement, (value, *values, k))
        return [
            (Key(doc_id, passage), float(np.float32(_score(layout, distance))))
            for doc_id, passage, distance in found
        ]

    def search_text(self, query: str, *, k: int, where: Node | None) -> list[tuple[Key, float]]:
        wanted = self._lexemes(query)
        if not wanted:
            return []
        sql, values = _where(where)
        found = self._execute(
            f"SELECT doc_id, passage, ts_rank('{{1,1,1,1}}', words, %s::tsquery) AS score FROM {self._table} "
            f"WHERE words @@ %s::tsquery AND {sql} ORDER BY score DESC, doc_id, passage LIMIT %s",
            (wanted, wanted, *values, k),
        )
        return [(Key(doc_id, passage), float(score)) for doc_id, passage, score in found]

    def text_limit(self, query: str) -> float:
        return 1.0 if self._lexemes(query) else 0.0

    def _lexemes(self, query: str) -> str:
        """Return the words of a query as PostgreSQL has them, joined by OR."""
        found = self._execute(
            f"SELECT lexeme FROM unnest(to_tsvector({self._config()}, %s))", (query.replace("\0", " "),)
        )
        escaped = (lexeme.replace("\\", "\\\\").replace("'", "''") for (lexeme,) in found)
        return " | ".join(f"'{lexeme}'" for lexeme in escaped)


def _score(layout: TableLayout, distance: float) -> float:
    """Turn what pgvector orders by, where less is better, into a score of ours."""
    if layout.metric == "cosine":
        return 1.0 - distance
    return -distance if layout.metric == "dot" else -distance * distance


_NO_ROOM = r"no longer fits into maintenance_work_mem after (\d+) tuples"  # pgvector's words
_WANTED = "unnest(%s::text[], %s::int[]) AS wanted (doc_id, passage)"


def _of(keys: Sequence[Key]) -> tuple[list[str], list[int]]:
    return [key.doc_id.replace("\0", "\ufffd") for key in keys], [key.passage for key in keys]


def _where(node: Node | None) -> tuple[str, list[Any]]:  # Any: SQL's values
    return ("true", []) if node is None else to_sql(node)


def _values(row: StoreRow) -> tuple[str | int, ...]:
    """Return a row as the table holds it: PostgreSQL has no NUL, so what is searched and shown has another sign in its place."""
    shown = (row.title, row.text)
    record = row.record
    if any("\0" in text for text in shown):
        import json

        record = json.dumps({**json.loads(record), "title": row.title, "text": row.text})
    title, text = (part.replace("\0", "\ufffd") for part in shown)
    metadata = row.metadata.replace("\\u0000", "\\ufffd")
    return (*row.key, title, text, row.source, metadata, record, row.digest)


def _row(values: Sequence[Any]) -> StoreRow:  # Any: SQL's values
    doc_id, passage, *rest = values
    return StoreRow(Key(doc_id, passage), *rest)
