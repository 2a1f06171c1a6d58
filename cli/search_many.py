"""Many queries at once: JSON lines, or a TREC run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from . import console
from .hits import hit_row

if TYPE_CHECKING:
    from embedkit.records import Hit, Query
    from embedkit.retrieval import Retriever, SearchOptions

# Queries searched together: one product against all vectors instead of one each.
BATCH_QUERIES = 256
Named = tuple[str, float]  # id and score


def search_many(retriever: Retriever, wanted: SearchOptions, source: str, run: Path | None) -> None:
    from embedkit.records import read_queries

    queries = read_queries([source])
    if run is None:
        for query, hits in _batches(retriever, wanted, queries):
            for rank, hit in enumerate(hits, 1):
                console.print_json({"query_id": query.query_id, **hit_row(hit, rank)})
        return
    from embedkit.evaluation.trec import write_run

    found: dict[str, dict[str, float]] = {}
    for query, named in _named_batches(retriever, wanted, queries):
        scores = found.setdefault(query.query_id, {})
        for doc_id, score in named:  # a run knows documents, not passages: the best passage counts
            scores.setdefault(doc_id, score)
    write_run(run, found)
    console.note(f"{run}: {sum(map(len, found.values())):,} hits for {len(found):,} queries")


def _batches(
    retriever: Retriever, wanted: SearchOptions, queries: Iterator[Query]
) -> Iterator[tuple[Query, list[Hit]]]:
    while batch := list(islice(queries, BATCH_QUERIES)):
        yield from zip(batch, retriever.search([query.text for query in batch], wanted), strict=True)


def _named_batches(
    retriever: Retriever, wanted: SearchOptions, queries: Iterator[Query]
) -> Iterator[tuple[Query, list[Named]]]:
    """Find ids and scores alone: all that a run holds, and several times faster where nothing needs the texts."""
    from indexes import Index

    index, embed = retriever.index, retriever.embed
    if (
        wanted.mode != "dense"
        or retriever.reranker is not None
        or embed is None
        or not isinstance(index, Index)
    ):
        for query, hits in _batches(retriever, wanted, queries):
            yield query, [(hit.doc_id, hit.score) for hit in hits]
        return
    least = -math.inf if wanted.min_score is None else wanted.min_score
    while batch := list(islice(queries, BATCH_QUERIES)):
        vectors = embed([query.text for query in batch])
        found = index.search_ids(vectors, k=wanted.k, where=wanted.where, group=wanted.group)
        for query, named in zip(batch, found, strict=True):
            yield query, [(doc_id, score) for doc_id, score in named if score >= least]
