"""What a server answers where one of its indexes is a shard of an index elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from embedkit.errors import IndexMismatchError
from embedkit.serving.indexes.live import LiveIndex
from embedkit.serving.indexes.shard_json import (
    Json,
    document_json,
    fields_json,
    hits_json,
    read_hits,
    read_statistics,
    read_vectors,
    statistics_json,
    vectors_json,
)
from indexes import Index

Work = Literal[
    "describe",
    "search",
    "search_ids",
    "search_text",
    "text_statistics",
    "misuses",
    "fill",
    "vectors_at",
    "count_rows",
    "known_ids",
    "document",
    "passages",
    "field_values",
]


@dataclass(frozen=True, kw_only=True)
class ShardBody:
    """One question to a shard. `fields` are the metadata fields of all shards, which a filter may name.

    `settings` is the digest of what the shard was when it was opened: other vectors would give scores that mean nothing.
    """

    do: Work
    index: str | None = None
    settings: str | None = None
    fields: list[str] = field(default_factory=list)
    vectors: dict[str, Any] | None = None  # Any: shape, and base64 of little-endian float32
    queries: list[str] = field(default_factory=list)
    terms: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    hits: list[list[dict[str, Any]]] = field(default_factory=list)  # Any: bare hits
    statistics: dict[str, Any] | None = None  # Any: rows, words, counts
    k: int = 10
    where: str | None = None
    group: bool = False
    bare: bool = False


def answer(live: LiveIndex, body: ShardBody) -> Json:
    """Answer one question by the newest commit of an index.

    Raises:
        ValueError: the index lies in shards itself, or the question lacks what it needs.
        FilterError: the filter cannot be understood.
        IndexMismatchError: the queries do not fit, or another index has taken the place of the one that is asked.
        IndexFileError: the index is damaged.
    """
    with live.opened() as opened:
        index = opened.index
        if not isinstance(index, Index):
            raise ValueError(f"{live.name!r} lies in shards; name these themselves")
        index.settings.need_dense(live.name, "a shard")
        if body.settings is not None and body.settings != index.settings.digest:
            raise IndexMismatchError(
                f"{live.name!r} is another index than was asked before, of another encoder or other passages. Open it again"
            )
        index.share_fields(body.fields)
        try:
            return {"result": _ANSWERS[body.do](index, body)}
        except (LookupError, OverflowError, TypeError) as exc:
            raise ValueError(f"this is no question to a shard: {exc!r}") from exc
        finally:
            index.share_fields(None)


def _describe(index: Index, _: ShardBody) -> Json:
    return {
        "settings": json.loads(index.settings.to_json()),
        "version": index.database.version,
        "rows": len(index),
        "documents": index.count_documents(),
        "fields": index.field_names(),
        "model": index.model_path,
    }


def _search(index: Index, body: ShardBody) -> Any:  # Any: JSON
    vectors = read_vectors(body.vectors or {})
    found = index.search(vectors, k=body.k, where=body.where, group=body.group, bare=body.bare)
    return hits_json(found, bare=body.bare)


def _search_text(index: Index, body: ShardBody) -> Any:  # Any: JSON
    found = index.search_text(
        body.queries,
        k=body.k,
        where=body.where,
        group=body.group,
        bare=body.bare,
        statistics=None if body.statistics is None else read_statistics(body.statistics),
        vectors=None if body.vectors is None else read_vectors(body.vectors),
    )
    return hits_json(found, bare=body.bare)


def _passages(index: Index, body: ShardBody) -> Json:
    hits, vectors = index.passages(body.ids[0])
    return {"hits": hits_json([hits], bare=False), "vectors": vectors_json(vectors)}


def _vectors_at(index: Index, body: ShardBody) -> Json:
    places = np.asarray(body.places, np.int64)
    if (places < 0).any():
        raise IndexError(f"place {places.min()} is below 0")
    return vectors_json(index.vectors_at(places))


_ANSWERS: Mapping[Work, Callable[[Index, ShardBody], Any]] = {  # Any: JSON
    "describe": _describe,
    "search": _search,
    "search_ids": lambda index, body: index.search_ids(
        read_vectors(body.vectors or {}), k=body.k, where=body.where, group=body.group
    ),
    "search_text": _search_text,
    "text_statistics": lambda index, body: statistics_json(index.text_statistics(body.terms)),
    "misuses": lambda index, body: [asdict(each) for each in index.misuses(body.where or "")],
    "fill": lambda index, body: hits_json(index.fill(read_hits(body.hits)), bare=False),
    "vectors_at": _vectors_at,
    "count_rows": lambda index, body: index.count_rows(body.where),
    "known_ids": lambda index, body: sorted(index.known_ids(body.ids)),
    "document": lambda index, body: document_json(index.document(body.ids[0])),
    "passages": _passages,
    "field_values": lambda index, body: fields_json(index.field_values()),
}
