"""Chroma: `chroma://HOST:PORT` (or `chroma+https://`), or `chroma:///FOLDER`. It is not searched by words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from embedkit.connectors.collection_store import CollectionStore
from embedkit.connectors.facets import All, Condition, Has, Within
from embedkit.connectors.urls import StoreUrl
from embedkit.connectors.vector_database import VectorDatabase
from embedkit.extras import load_extra

Filter = dict[str, Any]  # Any: JSON
_OPERATORS = {"=": "$eq", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
_PORT = 8000


def open_chroma(url: StoreUrl) -> CollectionStore:
    """Open a collection of Chroma's.

    Raises:
        MissingExtraError: the client is not installed.
    """
    client = load_extra("chroma", purpose="Chroma")
    is_https = url.parts.scheme.endswith("+https")
    password = url.parts.password
    server = {
        "host": url.parts.hostname,
        "port": url.parts.port or (443 if is_https else _PORT),
        "ssl": is_https,
        **url.options,
    }
    database: VectorDatabase = client.ChromaDatabase(
        url.table,
        url.place,
        folder=None if url.parts.hostname else Path(url.folder),
        server=server,
        key=os.environ.get("CHROMA_API_KEY") if password is None else unquote(password),
    )
    return CollectionStore(url, database, to_filter)


def to_filter(condition: Condition) -> Filter:
    """Return a condition as Chroma's JSON, whose lists have two parts at least."""
    if isinstance(condition, Has):
        return {"tokens": {"$contains" if condition.wanted else "$not_contains": condition.token}}
    if isinstance(condition, Within):
        return {condition.key: {_OPERATORS[condition.operator]: condition.number}}
    parts = [to_filter(part) for part in condition.parts]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return {"tokens": {"$not_contains": "never"}}  # all pass
    return {"$and" if isinstance(condition, All) else "$or": parts}
