"""What else than a query is asked of indexes: what they are, a document, what is like it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedkit.data.records import titled_text
from embedkit.errors import EmbedkitError
from embedkit.pipelines.judging import JudgedHit
from embedkit.retrieval.vectors import Vectors
from embedkit.serving.engine.engine import Engine
from embedkit.serving.indexes.computing import submit
from embedkit.serving.indexes.live import LiveIndex, OpenedIndex
from embedkit.serving.indexes.searching import READY_VECTORS, NamedHit
from embedkit.serving.model_names import served_name


class NotHereError(EmbedkitError):
    """A document or a passage is not in an index."""


def indexes_json(indexes: Sequence[LiveIndex]) -> list[dict[str, Any]]:  # Any: JSON
    """Say what each index holds."""
    return [_index_json(index) for index in indexes]


def _index_json(index: LiveIndex) -> dict[str, Any]:  # Any: JSON
    with index.opened() as opened:
        settings = opened.index.settings
        encoder = opened.encoder
        return {
            "name": index.name,
            "documents": opened.index.count_documents(),
            "passages": len(opened.index),
            "model": None if encoder is None else served_name(encoder.folder.name),
            "kind": settings.kind,
            "dimension": settings.dimension,
            "metric": settings.metric,
            "modes": ["text"] if encoder is None else ["dense", "text", "hybrid"],
            "fields": [
                {
                    "name": each.name,
                    "kind": each.kind,
                    "values": list(each.values),
                    "min": each.least,
                    "max": each.largest,
                }
                for each in index.fields(opened)
            ],
        }


def document(index: LiveIndex, doc_id: str) -> dict[str, Any]:  # Any: JSON
    """Return a document with its passages.

    Raises:
        NotHereError: it is not here.
    """
    with index.opened() as opened:
        found = opened.index.document(doc_id)
        hits, _ = opened.index.passages(doc_id)
        if found is None:
            raise missing(index, doc_id)
    return {
        "index": index.name,
        "id": found.doc_id,
        "title": found.title,
        "text": found.text,
        "metadata": dict(found.metadata),
        "source": found.source,
        "passages": [
            {
                "passage": hit.passage,
                "start": hit.start,
                "stop": hit.stop,
                "where": hit.where,
                "place": None if hit.place is None else hit.place.as_dict(),
            }
            for hit in hits
        ],
    }


def similar(index: LiveIndex, engine: Engine, doc_id: str, passage: int, k: int) -> list[NamedHit]:
    """Return the documents whose passages are nearest to a passage of a document, without itself, best first.

    Of an index of several vectors or weights a passage the engine encodes the text again, which is the passage's own title and text.
    A strength is the part of the passage's own score, 1 where they are alike.

    Raises:
        NotHereError: the document, or a passage of this number, is not here.
    """
    with index.opened() as opened:
        hits, vectors = opened.index.passages(doc_id)
        if not hits:
            raise missing(index, doc_id)
        places = [place for place, hit in enumerate(hits) if hit.passage == passage]
        if not places:
            raise NotHereError(f"{doc_id!r} has no passage {passage}; it has 0 to {hits[-1].passage}")
        itself: Vectors = vectors[places]
        if opened.index.settings.kind != "dense":
            itself = _encoded(opened, engine, titled_text(hits[places[0]].title, hits[places[0]].text))
        found = opened.index.search(itself, k=k + 1, group=True)[0]
    own = next((hit.score for hit in found if hit.doc_id == doc_id), 0.0)
    return [
        NamedHit(index.name, JudgedHit(hit, min(1.0, max(0.0, hit.score / own)) if own > 0 else 0.0))
        for hit in found
        if hit.doc_id != doc_id
    ][:k]


def _encoded(opened: OpenedIndex, engine: Engine, text: str) -> Vectors:
    if opened.embedder is None:
        raise NotHereError(READY_VECTORS.format(name=opened.name))
    return submit(engine, opened.embedder, [text], role="document").result().vectors


def missing(index: LiveIndex, doc_id: str) -> NotHereError:
    return NotHereError(f"there is no document {doc_id[:200]!r} in the index {index.name!r}")
