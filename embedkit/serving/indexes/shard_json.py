"""Hits, vectors and statistics as JSON, between an index in shards and a server that holds one of them; scores keep every bit."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedkit.data.places import Place
from embedkit.data.records import Document, Hit
from embedkit.types import Float32
from indexes import FieldValues, TextStatistics

Json = dict[str, Any]  # Any: JSON


def vectors_json(vectors: Float32) -> Json:
    """Write (N, E) vectors: base64 of little-endian float32."""
    content = np.ascontiguousarray(vectors, "<f4").tobytes()
    return {"shape": list(vectors.shape), "float32": base64.b64encode(content).decode("ascii")}


def read_vectors(content: Mapping[str, Any]) -> Float32:
    """Read what `vectors_json` wrote.

    Raises:
        ValueError: it is not that.
    """
    found = np.frombuffer(base64.b64decode(content["float32"], validate=True), "<f4")
    return found.reshape(content["shape"]).astype(np.float32)


def hits_json(hits: Sequence[Sequence[Hit]], *, bare: bool) -> list[list[Json]]:
    return [[_hit_json(hit, bare=bare) for hit in some] for some in hits]


def _hit_json(hit: Hit, *, bare: bool) -> Json:
    content = {"id": hit.doc_id, "score": hit.score, "passage": hit.passage, "scores": dict(hit.scores)}
    if bare:
        return content
    return content | {
        "text": hit.text,
        "title": hit.title,
        "metadata": dict(hit.metadata),
        "source": hit.source,
        "start": hit.start,
        "stop": hit.stop,
        "place": None if hit.place is None else hit.place.as_dict(),
    }


def read_hits(content: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[Hit]]:
    """Read what `hits_json` wrote.

    Raises:
        KeyError, TypeError: it is not that.
    """
    return [[_read_hit(row) for row in some] for some in content]


def _read_hit(row: Mapping[str, Any]) -> Hit:
    place = row.get("place")
    return Hit(
        row["id"],
        row["score"],
        row.get("text", ""),
        title=row.get("title", ""),
        metadata=row.get("metadata", {}),
        passage=row["passage"],
        scores=row["scores"],
        source=row.get("source", ""),
        start=row.get("start", 0),
        stop=row.get("stop", 0),
        place=None if place is None else Place.from_dict(place),
    )


def statistics_json(statistics: TextStatistics) -> Json:
    return {"rows": statistics.rows, "words": statistics.words, "counts": dict(statistics.counts)}


def read_statistics(content: Mapping[str, Any]) -> TextStatistics:
    return TextStatistics(content["rows"], content["words"], content["counts"])


def document_json(document: Document | None) -> Json | None:
    """Write a document; where the parts of its text stand in its file is told by its passages."""
    if document is None:
        return None
    return {
        "id": document.doc_id,
        "text": document.text,
        "title": document.title,
        "metadata": dict(document.metadata),
        "source": document.source,
    }


def read_document(content: Mapping[str, Any] | None) -> Document | None:
    if content is None:
        return None
    return Document(
        content["id"],
        content["text"],
        title=content["title"],
        metadata=content["metadata"],
        source=content["source"],
    )


def fields_json(found: Sequence[FieldValues]) -> list[Json]:
    return [
        {
            "name": each.name,
            "kind": each.kind,
            "values": list(each.values),
            "least": each.least,
            "largest": each.largest,
        }
        for each in found
    ]


def read_fields(content: Sequence[Mapping[str, Any]]) -> list[FieldValues]:
    return [FieldValues(**each) for each in content]
