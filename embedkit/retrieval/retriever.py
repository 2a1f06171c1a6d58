"""Retriever: query -> hits. Search by meaning, by words or both, fuse, rerank.

1. dense: embed the queries, take the nearest vectors; text: BM25; hybrid: both.
2. hybrid: fuse the two lists, by their scores or by ranks (`embedkit.retrieval.fusion`). A cosine counts as it is, and BM25 as the share
   of what the query could reach: so the one chance word that a few documents share with a query leads nowhere.
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
# No passage comes near the limit of BM25, which wants each word without end: one of average length that has each word once
# reaches 1 / 2.2 of it. Best of 1, 1.25, 1.5 and 1.6 on CISI and CACM, and within .001 of the best on SQuAD dev.
TEXT_GAIN = 1.5


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
        self, queries: Sequence[str], *, k: int, where: str | None, group: bool, bare: bool
    ) -> list[list[Hit]]:
        """Return up to k hits for each query by its words, best first; `bare` without what their documents hold."""
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
        if isinstance(queries, str):
            raise TypeError(f"queries is the string {queries[:60]!r}; it must be a sequence of strings")
        options = options if options is not None else SearchOptions()
        if not queries:
            return []
        alone = options.mode != "hybrid" and self.reranker is None
        width = options.k if alone else max(options.k, options.candidates)
        # Fused passages are grouped after the fusion: the two sides may favour different passages of a document.
        group = options.group and options.mode != "hybrid"
        # Of two times `width` candidates few are kept; the texts of the others are not worth reading.
        bare = options.mode == "hybrid"
        dense: list[list[Hit]] = [[] for _ in queries]
        text: list[list[Hit]] = [[] for _ in queries]
        if options.mode != "text":
            dense = search_directed(
                self._embed(queries, options.mode),
                lambda some: self.index.search(some, k=width, where=options.where, group=group, bare=bare),
                blank=_blank(queries),
            )
        if options.mode != "dense":
            text = self.index.search_text(queries, k=width, where=options.where, group=group, bare=bare)
        found = [by_meaning or by_words for by_meaning, by_words in zip(dense, text, strict=True)]
        if options.mode == "hybrid":
            wanted = options.k if self.reranker is None else width
            found = self.index.fill([hits[:wanted] for hits in self._fused(queries, dense, text, options)])
        return [self._best(query, hits, options) for query, hits in zip(queries, found, strict=True)]

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

    def _fused(
        self,
        queries: Sequence[str],
        dense: Sequence[Sequence[Hit]],
        text: Sequence[Sequence[Hit]],
        options: SearchOptions,
    ) -> list[list[Hit]]:
        high = self.index.score_limit
        bounded = options.fusion == "scores" and high is not None
        limits = self.index.text_limits(queries) if bounded else []
        results = []
        for number, (by_meaning, by_words) in enumerate(zip(dense, text, strict=True)):
            rankings = [Ranking(by_meaning, options.dense_weight), Ranking(by_words, options.text_weight)]
            if bounded:
                rankings = [
                    Ranking(by_meaning, options.dense_weight, 0.0, high),
                    Ranking(by_words, TEXT_GAIN * options.text_weight, 0.0, limits[number]),
                ]
            hits = fuse(rankings, by=options.fusion)
            results.append(first_of_each_document(hits) if options.group else hits)
        return results

    def search_ids(
        self, queries: Sequence[str], options: SearchOptions | None = None
    ) -> list[list[tuple[str, float]]]:
        """Return (doc_id, score) of what `search` returns; much faster where all of it comes from the vectors.

        Raises:
            ValueError: a dense search without `embed`.
        """
        options = options if options is not None else SearchOptions()
        if not queries or options.mode != "dense" or self.reranker is not None:
            return [[(hit.doc_id, hit.score) for hit in hits] for hits in self.search(queries, options)]
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


def first_of_each_document(hits: Iterable[Hit]) -> list[Hit]:
    """Keep the best hit of each document, in order."""
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(hit.doc_id, hit)
    return list(best.values())
