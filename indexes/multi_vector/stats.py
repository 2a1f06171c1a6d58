"""What a multi-vector index weighs beside what every index does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from .probing import Probing

if TYPE_CHECKING:
    from ..store import Index
    from .segment import TokenSegment


def token_parts(index: Index) -> dict[str, Any]:  # Any: of the names of `maintenance.stats.Stats`
    """Return how it is searched, and what its tokens take."""
    segments = cast("Sequence[TokenSegment]", index.snapshot.segments)
    tokens = sum(segment.num_tokens for segment in segments)
    probing = Probing.read(index.database)
    return {
        "kind": "lists" if probing.knobs else "flat",
        "knobs": dict(probing.knobs) or None,
        "target_recall": probing.target_recall,
        "curve": probing.curve,
        "tokens": tokens,
        "centroids": len(segments[0].codebook.centroids) if segments else 0,
        "bytes_per_token": sum(segment.info.num_bytes for segment in segments) / tokens if tokens else None,
    }
