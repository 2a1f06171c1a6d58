"""What shards found, in one order; and which of them a bare hit is of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import TypeVar

from embedkit.data.records import Hit
from embedkit.errors import IndexFileError

Ranked = TypeVar("Ranked")
Lists = Sequence[Sequence[Ranked]]  # by query, best first


@dataclass(frozen=True, slots=True)
class ShardHit(Hit):
    """A bare hit, and the number of its shard, which is asked for what its document holds."""

    shard: int = 0


def best(
    parts: Sequence[Lists[Ranked]], num_queries: int, k: int, order: Callable[[Ranked], tuple[object, ...]]
) -> list[list[Ranked]]:
    """Return the best k of all parts for each query. The sort is stable: passages of one id stay in the order of their shard."""
    return [
        sorted(chain.from_iterable(part[query] for part in parts), key=order)[:k]
        for query in range(num_queries)
    ]


def check_unique(kept: Iterable[tuple[str, int]]) -> None:
    """Refuse hits of one document in two shards.

    Raises:
        IndexFileError: shards have an id in common, which no build makes.
    """
    first: dict[str, int] = {}
    for doc_id, number in kept:
        if first.setdefault(doc_id, number) != number:
            raise IndexFileError(
                f"the document {doc_id!r} is in two shards, the numbers {first[doc_id]} and {number} from 0. Delete it from one of them"
            )


def merged_hits(found: Mapping[int, Lists[Hit]], num_queries: int, k: int, *, bare: bool) -> list[list[Hit]]:
    """Return the best k hits of all shards for each query, ties by id and passage; bare ones know their shard."""
    numbered = [[[(hit, number) for hit in hits] for hits in each] for number, each in found.items()]
    kept = best(numbered, num_queries, k, lambda pair: (-pair[0].score, pair[0].doc_id, pair[0].passage))
    check_unique((hit.doc_id, number) for some in kept for hit, number in some)
    return [[_of_shard(hit, number) if bare else hit for hit, number in some] for some in kept]


def merged_ids(
    found: Mapping[int, Lists[tuple[str, float]]], num_queries: int, k: int
) -> list[list[tuple[str, float]]]:
    """Return the best k ids of all shards for each query with their scores, ties by id."""
    numbered = [[[(*named, number) for named in some] for some in each] for number, each in found.items()]
    kept = best(numbered, num_queries, k, lambda named: (-named[1], named[0]))
    check_unique((doc_id, number) for some in kept for doc_id, _, number in some)
    return [[(doc_id, score) for doc_id, score, _ in some] for some in kept]


def _of_shard(hit: Hit, number: int) -> ShardHit:
    return ShardHit(**{each.name: getattr(hit, each.name) for each in fields(Hit)}, shard=number)


def by_shard(hits: Lists[Hit]) -> dict[int, list[Hit]]:
    """Return the bare hits of each shard.

    Raises:
        TypeError: one is not of `merged_hits`.
    """
    wanted: dict[int, list[Hit]] = {}
    for hit in chain.from_iterable(hits):
        if not isinstance(hit, ShardHit):
            raise TypeError(
                f"{hit.doc_id!r} is no bare hit of this index; fill takes those of a search with bare=True"
            )
        wanted.setdefault(hit.shard, []).append(hit)
    return wanted


def filled_hits(
    hits: Lists[Hit], wanted: Mapping[int, Sequence[Hit]], found: Mapping[int, Sequence[Hit]]
) -> list[list[Hit]]:
    """Put what shards `found` of the hits `wanted` of them in the place of the bare ones; of a shard that gave no answer they go."""
    filled = {
        (hit.doc_id, hit.passage): one
        for number, some in found.items()
        for hit, one in zip(wanted[number], some, strict=True)
    }
    # A hit may stand in several lists, with a score of its own in each.
    return [
        [
            filled[hit.doc_id, hit.passage].scored(hit.score, hit.scores)
            for hit in some
            if (hit.doc_id, hit.passage) in filled
        ]
        for some in hits
    ]
