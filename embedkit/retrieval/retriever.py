"""Retriever: query -> hits. Search by meaning, by words or both, fuse, rerank.

1. dense: embed the queries, take the nearest vectors; text: BM25; hybrid: both.
2. hybrid: fuse the two lists, by their scores or by ranks (`embedkit.retrieval.fusion`). A cosine counts as it is, also that of a
   passage found by words alone, and BM25 as the share of what the query could reach: so the one chance word that a few documents share
   with a query leads nowhere.
3. With a reranker: score the best candidates together with the query, and order them by that, or by both stages' scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from embedkit.data.records import Hit
from embedkit.retrieval.fusion import Ranking, fuse
from embedkit.retrieval.options import Mode, SearchOptions
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.reranking import rerank_hits
from embedkit.retrieval.vectors import Vectors, directed, take

Some = TypeVar("Some", bound=Vectors)
Found = TypeVar("Found")  # what a search makes of a hit


class SearchIndex(Protocol):
    """What a retriever needs of an index. Any: vectors of the index's kind, as `Vectors`."""

    def search(self, queries: Any, *, k: int, where: str | None, group: bool, bare: bool) -> list[list[Hit]]:
        """Return up to k hits for each of (Q, E) queries (Any: or vectors of another kind, as the index has them), best first; `bare` without what their documents hold."""
        ...

    def search_ids(
        self, queries: Any, *, k: int, where: str | None, group: bool
    ) -> list[list[tuple[str, float]]]:
        """Return (doc_id, score) of what `search` returns."""
        ...

    def search_text(
        self,
        queries: Sequence[str],
        *,
        k: int,
        where: str | None,
        group: bool,
        bare: bool,
        vectors: Any = None,
    ) -> list[list[Hit]]:
        """Return up to k hits for each query by its words, best first; `bare` without what their documents hold.

        With `vectors` of the queries (Q, E), their hits also have the score that `search` would give them, as `scores["dense"]`; they are
        given only where there is a `score_limit`.
        """
        ...

    def fill(self, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        """Add to bare hits what their documents hold."""
        ...

    def text_limits(self, queries: Sequence[str]) -> list[float]:
        """Return for each query what the scores of `search_text` cannot exceed here."""
        ...

    @property
    def score_limit(self) -> float | None:
        """What the scores of `search` cannot exceed: 1 where they are cosines, None where there is no limit."""
        ...


class Retriever:
    """Searches an index with what embeds its queries and, where there is one, a reranker."""

    joined = False  # whether hits come from several indexes (`embedkit.retrieval.joined`)

    def __init__(
        self,
        index: SearchIndex,
        *,
        embed: Callable[[Sequence[str]], Vectors] | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        """`embed` turns Q queries into (Q, E) float32, or vectors of the index's kind; it is not needed where all searches are by words."""
        self.index, self.embed, self.reranker = index, embed, reranker

    def search(self, queries: Sequence[str], options: SearchOptions | None = None) -> list[list[Hit]]:
        """Return up to k hits for each query, best first, ties by id and passage; none for one that is blank.

        Raises:
            ValueError: a dense search without `embed`.
            TypeError: `queries` is one string.
        """
        options = options if options is not None else SearchOptions()
        found = self._find(queries, options, bare=False)
        return [self._best(query, hits, options) for query, hits in zip(queries, found, strict=True)]

    def _find(self, queries: Sequence[str], options: SearchOptions, *, bare: bool) -> list[list[Hit]]:
        """Return the hits of the first stage for each query: as many as are wanted, or reranked; `bare` without what their documents hold."""
        _refuse_string(queries)
        if not queries:
            return []
        alone = options.mode != "hybrid" and self.reranker is None
        width = options.k if alone else max(options.k, options.candidates)
        if options.mode == "hybrid":
            wanted = options.k if self.reranker is None else width
            found = self._hybrid(queries, width, wanted, options)
            return found if bare else self.index.fill(found)
        if options.mode == "dense":
            return search_directed(
                self._embed(queries, options.mode),
                lambda some: self.index.search(
                    some, k=width, where=options.where, group=options.group, bare=bare
                ),
                blank=_blank(queries),
            )
        return self.index.search_text(queries, k=width, where=options.where, group=options.group, bare=bare)

    def _best(self, query: str, hits: Sequence[Hit], options: SearchOptions) -> list[Hit]:
        """Rerank hits where there is a reranker, and keep the first k that score enough."""
        if self.reranker is not None:
            hits = rerank_hits(
                self.reranker,
                query,
                hits,
                candidates=options.candidates,
                weight=options.rerank_weight,
                budget_seconds=options.rerank_budget_seconds,
            ).hits
        kept = [hit for hit in hits if options.min_score is None or hit.score >= options.min_score]
        return kept[: options.k]

    def _hybrid(
        self, queries: Sequence[str], width: int, wanted: int, options: SearchOptions
    ) -> list[list[Hit]]:
        """Return the first `wanted` bare hits of both searches, fused: of two times `width` the texts of the others are not worth reading."""
        high = self.index.score_limit if options.fusion == "scores" else None
        limits = [None] * len(queries) if high is None else self.index.text_limits(queries)
        vectors = self._embed(queries, options.mode)
        # Passages are grouped when they are fused and not before: the two sides may favour different ones of a document.
        found = self._both(queries, vectors, width, options, high, group=False)
        results = [
            _fused(*sides, options, high, limit, wanted) for sides, limit in zip(found, limits, strict=True)
        ]
        # All passages that were fetched may belong to a few documents: the best of the others come from searches that group.
        short = [
            position
            for position, hits in enumerate(results)
            if options.group and len(hits) < options.k and max(map(len, found[position])) >= width
        ]
        if short:
            some = [queries[position] for position in short]
            more = self._both(some, take(vectors, np.asarray(short)), options.k, options, high, group=True)
            for position, further in zip(short, more, strict=True):
                dense, text = map(_with_further, found[position], further)
                results[position] = _fused(dense, text, options, high, limits[position], wanted)
        return results

    def _both(
        self,
        queries: Sequence[str],
        vectors: Vectors,
        width: int,
        options: SearchOptions,
        high: float | None,
        *,
        group: bool,
    ) -> list[tuple[list[Hit], list[Hit]]]:
        """Return the hits of each query by meaning and by words; where there is a limit, the former have what words alone found, too."""
        searched = directed(vectors) & ~_blank(queries)
        found: list[tuple[list[Hit], list[Hit]]] = [([], []) for _ in queries]
        for has_direction in (True, False):
            positions = np.flatnonzero(searched == has_direction)
            if not len(positions):
                continue
            some = take(vectors, positions) if has_direction else None
            dense: list[list[Hit]] = [[] for _ in positions]
            if some is not None:
                dense = self.index.search(some, k=width, where=options.where, group=group, bare=True)
            text = self.index.search_text(
                [queries[position] for position in positions.tolist()],
                k=width,
                where=options.where,
                group=group,
                bare=True,
                vectors=None if high is None else some,
            )
            for position, by_meaning, by_words in zip(positions.tolist(), dense, text, strict=True):
                found[position] = (_with_scored(by_meaning, by_words), by_words)
        return found

    def search_ids(
        self, queries: Sequence[str], options: SearchOptions | None = None
    ) -> list[list[tuple[str, float]]]:
        """Return (doc_id, score) of what `search` returns; faster without a reranker, which reads texts.

        Raises:
            ValueError, TypeError: as `search`.
        """
        _refuse_string(queries)
        options = options if options is not None else SearchOptions()
        if not queries or options.mode != "dense" or self.reranker is not None:
            hits = self._find(queries, options, bare=self.reranker is None)
            return [
                [(hit.doc_id, hit.score) for hit in self._best(query, some, options)]
                for query, some in zip(queries, hits, strict=True)
            ]
        found = search_directed(
            self._embed(queries, options.mode),
            lambda some: self.index.search_ids(some, k=options.k, where=options.where, group=options.group),
            blank=_blank(queries),
        )
        least = options.min_score
        return [[named for named in some if least is None or named[1] >= least] for some in found]

    def _embed(self, queries: Sequence[str], mode: Mode) -> Vectors:
        if self.embed is None:
            raise ValueError(f"a search in mode {mode!r} needs `embed`")
        return self.embed(queries)


def _refuse_string(queries: Sequence[str]) -> None:
    if isinstance(queries, str):
        raise TypeError(f"queries is the string {queries[:60]!r}; it must be a sequence of strings")


def _fused(
    dense: Sequence[Hit],
    text: Sequence[Hit],
    options: SearchOptions,
    high: float | None,
    limit: float | None,
    wanted: int,
) -> list[Hit]:
    """Fuse the hits of a query by meaning, which cannot score more than `high`, and by words, no more than `limit` (None: there is none)."""
    low = None if high is None else 0.0
    by_meaning = [hit.scores.get("dense", hit.score) for hit in dense]
    rankings = [
        Ranking(dense, options.dense_weight, low, high, by_meaning),
        Ranking(text, options.text_weight, low, limit),
    ]
    return fuse(rankings, by=options.fusion, k=wanted, group=options.group)


def _with_further(hits: Sequence[Hit], further: Iterable[Hit]) -> list[Hit]:
    """Add hits of the same search that are not there yet, which are lower."""
    known = {(hit.doc_id, hit.passage) for hit in hits}
    return [*hits, *(hit for hit in further if (hit.doc_id, hit.passage) not in known)]


def _with_scored(dense: Sequence[Hit], text: Iterable[Hit]) -> list[Hit]:
    """Add to hits by meaning those by words that are not among them and have a score by meaning, which is lower."""
    known = {(hit.doc_id, hit.passage) for hit in dense}
    return [
        *dense,
        *(hit for hit in text if "dense" in hit.scores and (hit.doc_id, hit.passage) not in known),
    ]


def _blank(queries: Sequence[str]) -> npt.NDArray[np.bool_]:
    return np.array([not query.strip() for query in queries], np.bool_)


def search_directed(
    queries: Some,
    find: Callable[[Some], list[list[Found]]],
    *,
    blank: npt.NDArray[np.bool_] | None = None,
) -> list[list[Found]]:
    """Search with those queries that have a direction, which a text without tokens has not, and are not `blank` (Q,): those find nothing."""
    wanted = directed(queries) if blank is None else directed(queries) & ~blank
    if wanted.all():
        return find(queries)
    found = iter(find(take(queries, np.flatnonzero(wanted))) if wanted.any() else [])
    return [next(found) if has else [] for has in wanted.tolist()]
