"""One search over several indexes of the same documents, such as a dense and a sparse one: each is searched, and the lists are fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from embedkit.data.records import Hit
from embedkit.retrieval.fusion import Ranking, fuse
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.retriever import Retriever, first_of_each_document


class JoinedRetriever(Retriever):
    """Searches its first index as the options say and the others by their vectors, and fuses the lists with equal weights.

    Passages are the same where document and number are; indexes that cut their texts otherwise are better searched with `group`.
    """

    joined = True

    def __init__(
        self, first: Retriever, others: Sequence[Retriever], *, reranker: Reranker | None = None
    ) -> None:
        """The retrievers have no reranker of their own; `reranker` orders what was fused."""
        super().__init__(first.index, embed=first.embed, reranker=reranker)
        self._first, self._others = first, others

    def search(self, queries: Sequence[str], options: SearchOptions | None = None) -> list[list[Hit]]:
        """Return up to k hits for each query, best first, ties by id and passage."""
        options = options if options is not None else SearchOptions()
        width = max(options.k, options.candidates)
        wide = replace(options, k=width, min_score=None)
        lists = [self._first.search(queries, wide)]
        lists += [other.search(queries, replace(wide, mode="dense")) for other in self._others]
        results = []
        for query, found in zip(queries, zip(*lists, strict=True), strict=True):
            hits = fuse([Ranking(hits) for hits in found], by=options.fusion)
            hits = first_of_each_document(hits) if options.group else hits
            results.append(self._best(query, hits, options))
        return results

    def search_ids(
        self, queries: Sequence[str], options: SearchOptions | None = None
    ) -> list[list[tuple[str, float]]]:
        """Return (doc_id, score) of what `search` returns."""
        return [[(hit.doc_id, hit.score) for hit in hits] for hits in self.search(queries, options)]
