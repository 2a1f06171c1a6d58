"""Milvus: `milvus://USER:PASSWORD@HOST:PORT` (or `milvus+https://`), or `milvus:///FILE` for Milvus Lite. Words are found by Milvus's own BM25."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import unquote

from embedkit.connectors.collection_store import CollectionStore
from embedkit.connectors.facets import All, Condition, Has, Within
from embedkit.connectors.urls import StoreUrl
from embedkit.connectors.vector_database import VectorDatabase
from embedkit.errors import StoreError
from embedkit.extras import load_extra

_OPERATORS = {"=": "==", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_PORT = 19530


def open_milvus(url: StoreUrl) -> CollectionStore:
    """Open a collection of Milvus's.

    Raises:
        StoreError: the file's name does not end in .db.
        MissingExtraError: the client is not installed.
    """
    client = load_extra("milvus", purpose="Milvus")
    parts = url.parts
    if not parts.hostname and not url.folder.endswith(".db"):
        raise StoreError(
            f"{url.place}: a file of Milvus Lite ends in .db. Name one, or a server: milvus://HOST:PORT"
        )
    scheme = "https" if parts.scheme.endswith("+https") else "http"
    token = os.environ.get("MILVUS_TOKEN", "")
    if parts.password is not None:
        token = (
            f"{unquote(parts.username)}:{unquote(parts.password)}"
            if parts.username
            else unquote(parts.password)
        )
    database: VectorDatabase = client.MilvusDatabase(
        url.table,
        url.place,
        file=None if parts.hostname else Path(url.folder),
        address=f"{scheme}://{parts.hostname}:{parts.port or _PORT}",
        token=token,
        database=url.options.get("database", ""),
    )
    return CollectionStore(url, database, to_expression)


def to_expression(condition: Condition) -> str:
    """Return a condition in Milvus's language."""
    if isinstance(condition, Has):
        test = f'array_contains(tokens, "{condition.token}")'
        return test if condition.wanted else f"(not {test})"
    if isinstance(condition, Within):
        return f"(numbers[{json.dumps(condition.key)}] {_OPERATORS[condition.operator]} {condition.number!r})"
    if not condition.parts:
        return '(not array_contains(tokens, "never"))'  # all pass
    joined = " and " if isinstance(condition, All) else " or "
    return f"({joined.join(map(to_expression, condition.parts))})"
