"""One search over several indexes of the same documents, such as a dense and a sparse one: each is searched, and the lists are fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from embedkit.data.records import Hit
from embedkit.retrieval.fusion import Ranking, fuse
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.retriever import Retriever


class JoinedRetriever(Retriever):
    """Searches its first index as the options say and the others by their vectors, and fuses the lists with equal weights.

    Passages are the same where document and number are. With `group` documents are fused, each by its best passage in every index: so it
    must be where indexes cut their texts otherwise.
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
            same = _by_document(found) if options.group else list(found)
            hits = fuse([Ranking(each) for each in same], by=options.fusion)
            results.append(self._best(query, hits, options))
        return results

    def search_ids(
        self, queries: Sequence[str], options: SearchOptions | None = None
    ) -> list[list[tuple[str, float]]]:
        """Return (doc_id, score) of what `search` returns."""
        return [[(hit.doc_id, hit.score) for hit in hits] for hits in self.search(queries, options)]


def _by_document(lists: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
    """Let the hits of a document, of which each list has one, stand for the same passage: that of the first list that has one."""
    shown: dict[str, Hit] = {}
    for hits in lists:
        for hit in hits:
            shown.setdefault(hit.doc_id, hit)
    return [[shown[hit.doc_id].scored(hit.score, hit.scores) for hit in hits] for hits in lists]
