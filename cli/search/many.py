"""Many queries at once: JSON lines, or a TREC run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..shared import console
from .hits import hit_row

if TYPE_CHECKING:
    from embedkit.data.records import Query
    from embedkit.retrieval.options import SearchOptions

    from .sources import Searched

# Queries searched together: one product against all vectors instead of one each. What is printed at once is waited for,
# a reranked query longest.
RUN_QUERIES, PRINTED_QUERIES, RERANKED_QUERIES = 1024, 256, 16


def search_many(searched: Searched, wanted: SearchOptions, *, source: str, run: Path | None) -> None:
    from embedkit.data.queries import read_distinct_queries

    queries = read_distinct_queries([source])
    if run is None:
        for batch in _batches(queries, RERANKED_QUERIES if searched.reranks else PRINTED_QUERIES):
            found = searched.search([query.text for query in batch], wanted)
            coverage = searched.coverage()
            for query, hits in zip(batch, found, strict=True):
                for rank, hit in enumerate(hits, 1):
                    asked = {"query_id": query.query_id, "query": query.text}
                    console.print_json(asked | hit_row(hit, rank, coverage))
        return
    from embedkit.data.trec import refuse_white_space, write_run

    for query in queries:
        refuse_white_space(query.query_id, "query id")
    scores: dict[str, dict[str, float]] = {}
    for batch in _batches(queries, RUN_QUERIES):
        named = searched.search_ids([query.text for query in batch], wanted)
        searched.coverage()
        for query, best in zip(batch, named, strict=True):
            of_query = scores.setdefault(query.query_id, {})
            for doc_id, score in best:
                refuse_white_space(doc_id, "document id")
                of_query[doc_id] = score
    write_run(run, scores)
    written = console.counted(sum(map(len, scores.values())), "hit")
    console.note(f"{run}: {written} for {console.counted(len(scores), 'query')}")


def _batches(queries: list[Query], size: int) -> Iterator[list[Query]]:
    for start in range(0, len(queries), size):
        yield queries[start : start + size]
