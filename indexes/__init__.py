"""The index: documents and their vectors on disk, searched by meaning and by words.

`import indexes` loads neither faiss nor numpy; a name's module is loaded when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .maintenance.ann_build import AnnReport, build_ann, check_structure
    from .maintenance.build import BuildReport, build, delete_keys, find_vanished
    from .maintenance.compact import CompactReport, compact
    from .maintenance.content import (
        content_hash,
        id_hashes,
        ids_with_hashes,
        sqlite_version,
    )
    from .maintenance.export import (
        Exported,
        export_faiss,
        export_npy,
        export_parquet,
        export_records,
        living_texts,
    )
    from .maintenance.field_values import FieldValues, field_values
    from .maintenance.identity import FileNames
    from .maintenance.pairs import Cluster, Pair, cluster, duplicates, similar_pairs
    from .maintenance.repair import Repair, repair
    from .maintenance.stats import Stats, stats
    from .maintenance.take_in import build_vectors, merge_indexes, take_steps
    from .maintenance.take_shards import merge_shards
    from .maintenance.tune import check_tunable, tune
    from .maintenance.tune_points import TunePoint, TuneReport
    from .maintenance.verify import Finding, verify
    from .search.conditions import Misuse
    from .search.shared_scans import SharedScans
    from .search.shared_text import TextStatistics
    from .search.snippets import Snippet, mark_words, snippets
    from .search.text import find_terms
    from .searchable import Searchable, is_searchable, open_index
    from .sharded.coverage import Coverage
    from .sharded.index import ShardedIndex
    from .sharded.joining import join_shards
    from .sharded.options import GatherOptions
    from .sharded.shards_file import SHARDS, ShardPlace, ShardsFile, is_sharded
    from .storage.documents import Passage
    from .storage.layout import is_index
    from .storage.settings import Settings
    from .store import Deleted, Index
    from .types import Kind, Metric, Storage, VectorKind

_HOMES = {
    "maintenance.build": ("BuildReport", "build", "delete_keys", "find_vanished"),
    "maintenance.field_values": ("FieldValues", "field_values"),
    "maintenance.identity": ("FileNames",),
    "maintenance.compact": ("CompactReport", "compact"),
    "maintenance.content": (
        "content_hash",
        "id_hashes",
        "ids_with_hashes",
        "sqlite_version",
    ),
    "storage.documents": ("Passage",),
    "maintenance.export": (
        "Exported",
        "export_faiss",
        "export_npy",
        "export_parquet",
        "export_records",
        "living_texts",
    ),
    "maintenance.pairs": ("Cluster", "Pair", "cluster", "duplicates", "similar_pairs"),
    "maintenance.repair": ("Repair", "repair"),
    "storage.settings": ("Settings",),
    "types": ("Kind", "Metric", "Storage", "VectorKind"),
    "maintenance.stats": ("Stats", "stats"),
    "maintenance.take_in": ("build_vectors", "merge_indexes", "take_steps"),
    "maintenance.take_shards": ("merge_shards",),
    "storage.layout": ("is_index",),
    "store": ("Deleted", "Index"),
    "maintenance.ann_build": ("AnnReport", "build_ann", "check_structure"),
    "search.conditions": ("Misuse",),
    "search.shared_scans": ("SharedScans",),
    "search.shared_text": ("TextStatistics",),
    "search.text": ("find_terms",),
    "search.snippets": ("Snippet", "mark_words", "snippets"),
    "searchable": ("Searchable", "is_searchable", "open_index"),
    "sharded.coverage": ("Coverage",),
    "sharded.index": ("ShardedIndex",),
    "sharded.joining": ("join_shards",),
    "sharded.options": ("GatherOptions",),
    "sharded.shards_file": ("SHARDS", "ShardPlace", "ShardsFile", "is_sharded"),
    "maintenance.tune": ("check_tunable", "tune"),
    "maintenance.tune_points": ("TunePoint", "TuneReport"),
    "maintenance.verify": ("Finding", "verify"),
}
__all__ = [
    "SHARDS",
    "AnnReport",
    "BuildReport",
    "Cluster",
    "CompactReport",
    "Coverage",
    "Deleted",
    "Exported",
    "FieldValues",
    "FileNames",
    "Finding",
    "GatherOptions",
    "Index",
    "Kind",
    "Metric",
    "Misuse",
    "Pair",
    "Passage",
    "Repair",
    "Searchable",
    "Settings",
    "ShardPlace",
    "ShardedIndex",
    "ShardsFile",
    "SharedScans",
    "Snippet",
    "Stats",
    "Storage",
    "TextStatistics",
    "TunePoint",
    "TuneReport",
    "VectorKind",
    "build",
    "build_ann",
    "build_vectors",
    "check_structure",
    "check_tunable",
    "cluster",
    "compact",
    "content_hash",
    "delete_keys",
    "duplicates",
    "export_faiss",
    "export_npy",
    "export_parquet",
    "export_records",
    "field_values",
    "find_terms",
    "find_vanished",
    "id_hashes",
    "ids_with_hashes",
    "is_index",
    "is_searchable",
    "is_sharded",
    "join_shards",
    "living_texts",
    "mark_words",
    "merge_indexes",
    "merge_shards",
    "open_index",
    "repair",
    "similar_pairs",
    "snippets",
    "sqlite_version",
    "stats",
    "take_steps",
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
