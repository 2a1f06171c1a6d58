"""Hits of several indexes in one order.

1. `score`: one model. What a query scores by meaning is comparable, be it a cosine, a dot product or MaxSim. So are, of cosines, the fused
   scores of hybrid search, which lie on the scales of `embedkit.retrieval.fusion`: the cosine, and BM25 as a share of what the query could
   reach in its index.
2. `strength`: several models, whose cosines are not comparable. What counts is where a hit lies between what chance gives in its index, 0,
   and what relevant documents typically have, 1, or beyond (`embedkit.retrieval.strength`). By words alone (mode text) it is so, too: as a share of
   what the query could reach.
3. `ranks`: fusion by ranks was asked for, or scores of several models or of hybrid search have no scale, as those of dot, l2, MaxSim and
   weights of terms: 1 / (60 + rank).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from embedkit.data.records import Hit
from embedkit.pipelines.judging import yardstick_of
from embedkit.pipelines.searching import Search
from embedkit.retrieval.fusion import RANK_CONSTANT
from embedkit.retrieval.options import SearchOptions

Order = Literal["score", "strength", "ranks"]


@dataclass(frozen=True, slots=True)
class IndexHit(Hit):
    """A hit, and the name of the index that it is of."""

    index: str = ""

    @classmethod
    def of(cls, hit: Hit, index: str) -> IndexHit:
        return cls(**{name: getattr(hit, name) for name in Hit.__dataclass_fields__}, index=index)


def order_of(searches: Sequence[Search], wanted: SearchOptions) -> Order:
    """Say by what the hits of several indexes are put in one order."""
    if wanted.mode == "hybrid" and wanted.fusion == "ranks":
        return "ranks"
    if wanted.mode == "text":
        return "strength"
    encoders = {None if search.embedder is None else search.embedder.encoder for search in searches}
    scaled = all(search.index.score_limit is not None for search in searches)
    if len(encoders) == 1 and (scaled or wanted.mode == "dense"):
        return "score"
    return "strength" if scaled else "ranks"


def merge(
    query: str, searches: Sequence[Search], found: Sequence[Sequence[IndexHit]], wanted: SearchOptions
) -> list[IndexHit]:
    """Put the hits of several indexes in one order, best first, ties by index, id and passage; `score` is what the order goes by."""
    order = order_of(searches, wanted)
    merged: list[IndexHit] = []
    for search, hits in zip(searches, found, strict=True):
        match order:
            case "score":
                merged += hits
            case "strength":
                yardstick = yardstick_of(search, query, wanted) if hits else None
                merged += [
                    replace(hit, score=yardstick.place(hit.scores)) for hit in hits if yardstick is not None
                ]
            case "ranks":
                merged += [
                    replace(hit, score=1.0 / (RANK_CONSTANT + rank)) for rank, hit in enumerate(hits, 1)
                ]
    return sorted(merged, key=lambda hit: (-hit.score, hit.index, hit.doc_id, hit.passage))
