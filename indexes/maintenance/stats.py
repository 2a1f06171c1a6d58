"""What an index holds and what it weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..storage.ann_info import AnnInfo
from ..storage.faults import reading
from ..storage.settings import Settings

if TYPE_CHECKING:
    from ..store import Index


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counts and sizes of one index; `kind` is 'flat' where every search is exact.

    Of a multi-vector index `vectors` are its passages, and `tokens`, `centroids` and `bytes_per_token` say what these hold.
    """

    format_version: int
    settings: Settings
    documents: int
    vectors: int
    tombstones: int
    segments: int
    vector_bytes: int
    database_bytes: int
    fields: Sequence[str]
    kind: str
    ann_bytes: int = 0
    ann_vectors: int = 0  # newer ones are searched exactly
    knobs: Mapping[str, int] | None = None
    target_recall: float | None = None
    curve: Sequence[Mapping[str, Any]] = ()  # Any: see tuning.TunePoint
    tokens: int | None = None
    centroids: int | None = None
    bytes_per_token: float | None = None  # of the segments' files, lists and all


def stats(index: Index) -> Stats:
    """Count what is in an index.

    Raises:
        IndexFileError: the database is damaged.
    """
    database, snapshot = index.database, index.snapshot
    with reading(database.path):
        documents, tombstones = database.count("documents"), database.count("tombstones")
        fields = database.field_names()
    info = None if index.ann is None else index.ann.info
    if index.settings.kind == "multi-vector":
        from ..multi_vector.stats import token_parts

        more = token_parts(index)
    else:
        more = _ann_parts(info)
    files = [database.path, *(database.path.with_name(database.path.name + end) for end in ("-wal", "-shm"))]
    return Stats(
        format_version=database.version,
        settings=index.settings,
        documents=documents,
        vectors=snapshot.num_rows,
        tombstones=tombstones,
        segments=len(snapshot.segments),
        vector_bytes=sum(segment.info.num_bytes for segment in snapshot.segments),
        database_bytes=sum(path.stat().st_size for path in files if path.exists()),
        fields=fields,
        **more,
    )


def _ann_parts(info: AnnInfo | None) -> dict[str, Any]:  # Any: of the names of Stats
    if info is None:
        return {"kind": "flat"}
    return {
        "kind": info.kind,
        "ann_bytes": info.num_bytes,
        "ann_vectors": info.rows,
        "knobs": info.knobs,
        "target_recall": info.target_recall,
        "curve": info.curve,
    }
