"""Dense search for mining, and the cosines that its margins compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from embedkit.data.records import Hit, titled_text
from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.retrieval.retriever import search_directed

Floats = NDArray[np.float32]
# Vectors of texts kept from one window of queries to the next: 150 MB of 384 dimensions.
MAX_REMEMBERED = 100_000


class CosineMeasure:
    """Dense search that remembers what it scored, so that only what it did not find is encoded for a cosine, and once."""

    def __init__(
        self,
        embed_queries: Callable[[Sequence[str]], Floats],
        embed_documents: Callable[[Sequence[str]], Floats],
        find: Callable[[Floats, int], list[list[Hit]]],
    ) -> None:
        self._embed_queries, self._embed_documents, self._find = embed_queries, embed_documents, find
        self._queries: dict[str, Floats] = {}
        self._scores: dict[tuple[str, str], float] = {}
        self._vectors: dict[str, Floats] = {}  # of texts that other searches found, the oldest first

    def search(self, queries: Sequence[str], depth: int) -> list[list[Hit]]:
        """Find the hits of some queries; what was remembered of earlier ones is forgotten."""
        vectors = normalize(self._embed_queries(queries))
        self._queries = dict(zip(queries, vectors, strict=True))
        found = search_directed(vectors, lambda some: self._find(some, depth))
        pairs = zip(queries, found, strict=True)
        self._scores = {
            (query, titled_text(hit.title, hit.text)): hit.score for query, hits in pairs for hit in hits
        }
        return found

    def score(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return the cosine of each query of the last search with each of its texts."""
        pairs = [(query, text) for query, own in zip(queries, texts, strict=True) for text in own]
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in self._scores]
        distinct = dict.fromkeys(text for _, text in missing)
        new = [text for text in distinct if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, normalize(self._embed_documents(new)), strict=True))
        for query, text in missing:
            self._scores[query, text] = float(self._queries[query] @ self._vectors[text])
        for text in list(islice(self._vectors, max(0, len(self._vectors) - MAX_REMEMBERED))):
            del self._vectors[text]
        return [
            [self._scores[query, text] for text in own] for query, own in zip(queries, texts, strict=True)
        ]
