"""Qdrant: `qdrant://HOST:PORT` (or `qdrant+https://`), or `qdrant:///FOLDER` for the client's local mode.

Words are found by sparse vectors whose idf Qdrant puts in, which makes BM25 of them. Numbers lie in a list of pairs, so that two indexes serve
all fields.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from embedkit.connectors.collection_store import CollectionStore
from embedkit.connectors.facets import All, Condition, Has, Within
from embedkit.connectors.urls import StoreUrl
from embedkit.connectors.vector_database import VectorDatabase
from embedkit.errors import StoreError
from embedkit.extras import load_extra

Filter = dict[str, Any]  # Any: JSON
_OPERATORS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_PORT = 6333


def open_qdrant(url: StoreUrl) -> CollectionStore:
    """Open a collection of Qdrant's.

    Raises:
        StoreError: the URL asks for a quantization that there is not.
        MissingExtraError: the client is not installed.
    """
    client = load_extra("qdrant", purpose="Qdrant")
    quantization = url.options.get("quantization")
    if quantization not in (None, "int8"):
        raise StoreError(f"{url.place}: quantization is {quantization!r}; wanted is int8, or leave it out")
    scheme = "https" if url.parts.scheme.endswith("+https") else "http"
    password = url.parts.password
    key = os.environ.get("QDRANT_API_KEY") if password is None else unquote(password)
    database: VectorDatabase = client.QdrantDatabase(
        url.table,
        url.place,
        folder=None if url.parts.hostname else Path(url.folder),
        address=f"{scheme}://{url.parts.hostname}:{url.parts.port or _PORT}{url.parts.path}",
        key=key,
        int8=quantization is not None,
    )
    return CollectionStore(url, database, to_filter)


def to_filter(condition: Condition) -> Filter:
    """Return a condition as Qdrant's JSON."""
    if isinstance(condition, Has):
        test = {"key": "tokens", "match": {"value": condition.token}}
        return {"must" if condition.wanted else "must_not": [test]}
    if isinstance(condition, Within):
        return {"must": [_number(condition)]}
    parts = [to_filter(part) for part in condition.parts]
    return {"must" if isinstance(condition, All) else "should": parts}


def _number(condition: Within) -> Mapping[str, object]:
    sides = [_OPERATORS[condition.operator]] if condition.operator != "=" else ["gte", "lte"]
    within = {"key": "value", "range": dict.fromkeys(sides, condition.number)}
    named = {"key": "key", "match": {"value": condition.key}}
    return {"nested": {"key": "numbers", "filter": {"must": [named, within]}}}
