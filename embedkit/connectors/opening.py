"""Opening a store by its URL: only the module of its kind is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedkit.connectors.urls import read_url

if TYPE_CHECKING:
    from embedkit.connectors.store import Store


def open_store(url: str) -> Store:
    """Open a store; nothing is made there.

    Raises:
        StoreError: the URL cannot be read, or the store not be reached.
        MissingExtraError: the store's client is not installed.
    """
    read = read_url(url)
    if read.kind == "pgvector":
        from embedkit.connectors.pgvector import PgVector

        return PgVector(read)
    if read.kind == "lancedb":
        from embedkit.connectors.lancedb import LanceDb

        return LanceDb(read)
    if read.kind == "qdrant":
        from embedkit.connectors.qdrant import open_qdrant

        return open_qdrant(read)
    if read.kind == "chroma":
        from embedkit.connectors.chroma import open_chroma

        return open_chroma(read)
    from embedkit.connectors.milvus import open_milvus

    return open_milvus(read)
