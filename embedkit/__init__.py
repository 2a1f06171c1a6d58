"""Sentence embeddings and retrieval: models, training, encoding, reranking, evaluation.

`import embedkit` loads neither torch nor numpy; a name's module is loaded when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedkit.data.reading import DocumentReader, read_documents, read_queries
    from embedkit.data.records import Document, Hit, Query, ReadOptions
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.job import EncodeOptions, EncodeProgress, encode_to_file
    from embedkit.errors import EmbedkitError

_HOMES = {
    "encoding.encoder": ("Encoder",),
    "encoding.job": ("EncodeOptions", "EncodeProgress", "encode_to_file"),
    "errors": ("EmbedkitError",),
    "data.reading": ("DocumentReader", "read_documents", "read_queries"),
    "data.records": ("Document", "Hit", "Query", "ReadOptions"),
}
__all__ = [
    "Document",
    "DocumentReader",
    "EmbedkitError",
    "EncodeOptions",
    "EncodeProgress",
    "Encoder",
    "Hit",
    "Query",
    "ReadOptions",
    "encode_to_file",
    "read_documents",
    "read_queries",
]


def __getattr__(name: str) -> Any:  # Any: whatever the name stands for
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"embedkit.{home}"), name)
    raise AttributeError(f"module 'embedkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
