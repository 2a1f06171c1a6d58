"""Which payload and which search an index of each kind has; the one place that tells kinds apart."""

from __future__ import annotations

from .search.search import KindParts, search_rows
from .storage.database import Database
from .storage.payload import DensePayload
from .storage.settings import Settings


def parts_of(settings: Settings, database: Database) -> KindParts:
    """Return what differs by the kind of an index.

    Raises:
        ValueError: no index of the kind can be made here.
    """
    if settings.kind == "dense":
        return KindParts(DensePayload(settings, database), search_rows)
    if settings.kind == "multi-vector":
        from .multi_vector.payload import MultiVectorPayload
        from .multi_vector.search import TokenSearch

        return KindParts(MultiVectorPayload(settings, database), TokenSearch(database))
    if settings.kind == "sparse":
        from .sparse.payload import SparsePayload
        from .sparse.search import search_sparse

        return KindParts(SparsePayload(settings), search_sparse)
    raise ValueError(f"the kind {settings.kind!r} is not known here")
