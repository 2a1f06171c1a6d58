"""Sentence embeddings and retrieval: models, training, encoding, reranking, generation, evaluation, search.

    from embedkit import CrossEncoder, Encoder, Index, Retriever, SearchOptions

`import embedkit` loads neither torch nor numpy; a name's module is loaded when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedkit.data.places import Mark, Place
    from embedkit.data.reading import DocumentReader, read_documents, read_queries
    from embedkit.data.records import Document, Hit, Query, ReadOptions
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.job import EncodeOptions, EncodeProgress, encode_to_file
    from embedkit.encoding.sparse import SparseEncoder
    from embedkit.errors import EmbedkitError
    from embedkit.generation.generator import Generator
    from embedkit.generation.options import GenerationOptions
    from embedkit.reranking.cross_encoder import CrossEncoder
    from embedkit.retrieval.options import SearchOptions
    from embedkit.retrieval.retriever import Retriever
    from indexes import Index

_HOMES = {
    "embedkit.data.places": ("Mark", "Place"),
    "embedkit.data.reading": ("DocumentReader", "read_documents", "read_queries"),
    "embedkit.data.records": ("Document", "Hit", "Query", "ReadOptions"),
    "embedkit.encoding.encoder": ("Encoder",),
    "embedkit.encoding.job": ("EncodeOptions", "EncodeProgress", "encode_to_file"),
    "embedkit.encoding.sparse": ("SparseEncoder",),
    "embedkit.errors": ("EmbedkitError",),
    "embedkit.generation.generator": ("Generator",),
    "embedkit.generation.options": ("GenerationOptions",),
    "embedkit.reranking.cross_encoder": ("CrossEncoder",),
    "embedkit.retrieval.options": ("SearchOptions",),
    "embedkit.retrieval.retriever": ("Retriever",),
    "indexes": ("Index",),
}
__all__ = [
    "CrossEncoder",
    "Document",
    "DocumentReader",
    "EmbedkitError",
    "EncodeOptions",
    "EncodeProgress",
    "Encoder",
    "GenerationOptions",
    "Generator",
    "Hit",
    "Index",
    "Mark",
    "Place",
    "Query",
    "ReadOptions",
    "Retriever",
    "SearchOptions",
    "SparseEncoder",
    "encode_to_file",
    "read_documents",
    "read_queries",
]


def __getattr__(name: str) -> Any:  # Any: whatever the name stands for
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'embedkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
