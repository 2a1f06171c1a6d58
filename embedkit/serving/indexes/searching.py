"""One query to one index or several: found, merged, reranked, judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from embedkit.errors import IndexMismatchError
from embedkit.pipelines.judging import JudgedHit, judge
from embedkit.pipelines.searching import Search
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.reranking import rerank_hits
from embedkit.retrieval.retriever import Retriever
from embedkit.retrieval.vectors import Vectors
from embedkit.serving.indexes.computing import EngineReranker, QueryVectors
from embedkit.serving.indexes.live import LiveIndex, OpenedIndex
from embedkit.serving.indexes.merging import IndexHit, merge
from embedkit.serving.model_names import served_name

READY_VECTORS = 'the index {name!r} was built from ready vectors: which encoder made them is not known. Search it with "mode": "text"'


@dataclass(frozen=True)
class NamedHit:
    """A judged hit, and the name of the index that it is of."""

    index: str
    judged: JudgedHit


@dataclass(frozen=True, kw_only=True)
class FoundHits:
    """What a query found: the hits, best first, weak ones among them; `models` are those that read it, by index."""

    hits: Sequence[NamedHit]
    models: Mapping[str, str]
    notes: Sequence[str]
    search_seconds: float


def search_indexes(
    indexes: Sequence[LiveIndex],
    query: str,
    wanted: SearchOptions,
    vectors: QueryVectors,
    reranker: EngineReranker | None = None,
) -> FoundHits:
    """Search indexes with one query, each on one commit.

    One index gives what a local search gives. Of several each gives its best, which are put in one order (`merging`); a reranker reads the
    best candidates of all.

    Raises:
        FilterError: the filter cannot be understood.
        IndexMismatchError: an index has no encoder, and meaning is searched.
        QueueFullError: the engine takes no more.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        # In the order of their names: two requests that each hold what the other waits for would wait for ever.
        opened = [
            stack.enter_context(index.opened()) for index in sorted(indexes, key=lambda each: each.name)
        ]
        for each in opened:
            if wanted.mode != "text" and each.embedder is None:
                raise IndexMismatchError(READY_VECTORS.format(name=each.name))
        searches = [_search(each, vectors, reranker) for each in opened]
        if len(opened) == 1:
            hits = [
                IndexHit.of(hit, opened[0].name) for hit in searches[0].retriever.search([query], wanted)[0]
            ]
        else:
            hits = _several(query, opened, searches, wanted, vectors)
        judged = _judged(query, opened, searches, hits, wanted)
        return FoundHits(
            hits=judged,
            models={} if wanted.mode == "text" else {each.name: _model(each) for each in opened},
            notes=_notes(query, opened, wanted, vectors, reranker),
            search_seconds=time.perf_counter() - started,
        )


def _model(opened: OpenedIndex) -> str:
    assert opened.encoder is not None  # else the search was refused
    return served_name(opened.encoder.folder.name)


def _search(opened: OpenedIndex, vectors: QueryVectors, reranker: EngineReranker | None) -> Search:
    embed: Callable[[Sequence[str]], Vectors] | None = None
    if opened.embedder is not None:
        embed = partial(vectors.embed, opened.embedder)
    retriever = Retriever(opened.index, embed=embed, reranker=reranker)
    return Search(opened.index, retriever, opened.embedder, reranker)


def _several(
    query: str,
    opened: Sequence[OpenedIndex],
    searches: Sequence[Search],
    wanted: SearchOptions,
    vectors: QueryVectors,
) -> list[IndexHit]:
    """Return up to k hits of all indexes together."""
    reranker = searches[0].reranker
    # The reranker and the least score wait for the one order.
    width = wanted.k if reranker is None else max(wanted.k, wanted.candidates)
    first = replace(wanted, k=width, min_score=None)
    found = []
    for each in opened:
        hits = _search(each, vectors, None).retriever.search([query], first)[0]
        found.append([IndexHit.of(hit, each.name) for hit in hits])
    merged = merge(query, searches, found, wanted)
    if reranker is not None:
        reranked = rerank_hits(
            reranker,
            query,
            merged[:width],
            candidates=wanted.candidates,
            weight=wanted.rerank_weight,
            budget_seconds=wanted.rerank_budget_seconds,
        )
        merged = [hit for hit in reranked.hits if isinstance(hit, IndexHit)]  # as all of them are
    kept = [hit for hit in merged if wanted.min_score is None or hit.score >= wanted.min_score]
    return kept[: wanted.k]


def _judged(
    query: str,
    opened: Sequence[OpenedIndex],
    searches: Sequence[Search],
    hits: Sequence[IndexHit],
    wanted: SearchOptions,
) -> list[NamedHit]:
    """Judge each hit by the scales of its own index."""
    found: dict[int, NamedHit] = {}
    for each, search in zip(opened, searches, strict=True):
        places = [place for place, hit in enumerate(hits) if hit.index == each.name]
        judged = judge(search, query, [hits[place] for place in places], wanted)
        found.update((place, NamedHit(each.name, one)) for place, one in zip(places, judged, strict=True))
    return [found[place] for place in range(len(hits))]


def _notes(
    query: str,
    opened: Sequence[OpenedIndex],
    wanted: SearchOptions,
    vectors: QueryVectors,
    reranker: EngineReranker | None,
) -> list[str]:
    notes = [each.note for each in opened if each.note]
    for each in opened:
        coverage = each.index.take_coverage()
        if coverage is not None and not coverage.complete:
            notes.append(f"{each.name}: {coverage.explained()}")
    if not query.strip():
        return [*notes, "the query is empty"]
    embedders = {each.embedder.encoder: each.embedder for each in opened if each.embedder is not None}
    for encoder, embedder in embedders.items():
        embedded = vectors.known.get(encoder)
        if embedded is None:
            continue
        if embedded.truncated.any():
            limit = embedder.tokenizer.max_length
            notes.append(
                f"the query was cut to the {limit} tokens that {served_name(encoder.folder.name)} reads"
            )
        if embedded.unknown.any() and wanted.mode != "text":
            how = (
                "only its words were searched" if wanted.mode == "hybrid" else "nothing was found by meaning"
            )
            notes.append(
                f"the query is made of nothing that {served_name(encoder.folder.name)} knows, as of another script: {how}"
            )
    if reranker is not None and reranker.truncated:
        notes.append(
            f"{served_name(reranker.name)} read only the beginning of {reranker.truncated:,} candidates"
        )
    return notes
