"""The index: documents and their vectors on disk, searched by meaning and by words.

`import indexes` loads neither faiss nor numpy; a name's module is loaded when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .building import BuildReport, build
    from .compacting import CompactReport, compact
    from .counting import Stats, stats
    from .documents import Passage
    from .exchange import Exported, build_vectors, export_faiss, export_npy, export_records, merge_indexes
    from .pairs import Cluster, Pair, cluster, duplicates, similar_pairs
    from .repairing import Repair, repair
    from .settings import Settings
    from .store import Deleted, Index
    from .structure import AnnReport, build_ann
    from .text import Snippet, snippets
    from .tuning import TunePoint, TuneReport, tune
    from .verifying import Finding, verify

_HOMES = {
    "building": ("BuildReport", "build"),
    "compacting": ("CompactReport", "compact"),
    "documents": ("Passage",),
    "exchange": (
        "Exported",
        "build_vectors",
        "export_faiss",
        "export_npy",
        "export_records",
        "merge_indexes",
    ),
    "pairs": ("Cluster", "Pair", "cluster", "duplicates", "similar_pairs"),
    "repairing": ("Repair", "repair"),
    "settings": ("Settings",),
    "counting": ("Stats", "stats"),
    "store": ("Deleted", "Index"),
    "structure": ("AnnReport", "build_ann"),
    "text": ("Snippet", "snippets"),
    "tuning": ("TunePoint", "TuneReport", "tune"),
    "verifying": ("Finding", "verify"),
}
__all__ = [
    "AnnReport",
    "BuildReport",
    "Cluster",
    "CompactReport",
    "Deleted",
    "Exported",
    "Finding",
    "Index",
    "Pair",
    "Passage",
    "Repair",
    "Settings",
    "Snippet",
    "Stats",
    "TunePoint",
    "TuneReport",
    "build",
    "build_ann",
    "build_vectors",
    "cluster",
    "compact",
    "duplicates",
    "export_faiss",
    "export_npy",
    "export_records",
    "merge_indexes",
    "repair",
    "similar_pairs",
    "snippets",
    "stats",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:  # Any: whatever the module holds
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
