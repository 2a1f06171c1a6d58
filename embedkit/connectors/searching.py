"""`search`: a store searched as an index is; queries are encoded and hits reranked here, the store finds the candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from embedkit.connectors.carrying import hit_of
from embedkit.connectors.info import StoreInfo, read_info
from embedkit.connectors.opening import open_store
from embedkit.connectors.store import Key, Store, Vectors, best_first
from embedkit.data.records import Hit
from embedkit.errors import FilterError, StoreError
from embedkit.pipelines.searching import load_models
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.retriever import Retriever
from embedkit.retrieval.strength import CosineNoise
from embedkit.types import Computing
from indexes import Settings
from indexes.candidates import Scorer
from indexes.search.fields import misuse_of_kinds
from indexes.search.snapshot import NOISE_LEAST, NOISE_SAMPLE
from indexes.search.syntax import Node, leaves, parse_filter, uses_of
from indexes.storage.vectors import prepare_vectors

if TYPE_CHECKING:
    from embedkit.pipelines.embedders import AnyEmbedder
    from embedkit.retrieval.reranker import Reranker
    from indexes.storage.settings import Fingerprint

Found = list[tuple[Key, float]]


class StoreIndex:
    """A store that is searched as an index is (`embedkit.retrieval.retriever.SearchIndex`)."""

    def __init__(self, store: Store, info: StoreInfo, *, ef: int | None = None) -> None:
        self.store, self.info, self.ef = store, info, ef
        self.path, self.model_path = store.place, info.model_path
        self.settings: Settings = info.settings
        self._trees: dict[str, Node] = {}

    def __len__(self) -> int:
        return self._size

    @cached_property
    def _size(self) -> int:
        return self.store.count()

    @cached_property
    def noise(self) -> CosineNoise | None:
        """As `Index.noise`, measured on the rows that come first."""
        scorer = Scorer(self.settings.metric)
        for _, vectors in self.store.scan():
            some = vectors[:NOISE_SAMPLE]
            return CosineNoise.of(scorer.tile(some, some)) if len(some) >= NOISE_LEAST else None
        return None

    @property
    def score_limit(self) -> float | None:
        return 1.0 if self.settings.metric == "cosine" else None

    def check_encoder(self, fingerprint: Fingerprint | None) -> None:
        """Refuse queries from an encoder that did not make the vectors here; as `Index.check_encoder`."""
        self.settings.check_encoder(fingerprint, self.path)

    def take_coverage(self) -> None:
        """Return nothing: a store is not in shards."""

    def count_rows(self, where: str | None = None) -> int:
        """Count the rows, or those that a filter lets pass."""
        return len(self) if where is None else self.store.count(self._condition(where))

    def search(
        self, queries: Vectors, *, k: int, where: str | None, group: bool, bare: bool
    ) -> list[list[Hit]]:
        """Return up to k hits for each of (Q, E) queries, best first, ties by id.

        Raises:
            IndexMismatchError: queries of another dimension.
            FilterError: the filter cannot be understood, or the store cannot say it.
        """
        prepared = self._prepared(queries)
        node = self._condition(where)

        def find(query: Vectors, width: int) -> Found:
            return self.store.search(query, layout=self.info.layout, k=width, where=node, ef=self.ef)

        found = [self._best(partial(find, query), k, group) for query in prepared]
        return self._hits(found, "dense", bare)

    def _prepared(self, queries: Vectors) -> Vectors:
        names = [f"query {number}" for number in range(1, len(queries) + 1)]
        return prepare_vectors(queries, replace(self.settings, storage="float32"), names)

    def search_ids(
        self, queries: Vectors, *, k: int, where: str | None, group: bool
    ) -> list[list[tuple[str, float]]]:
        """Return (doc_id, score) of what `search` returns."""
        found = self.search(queries, k=k, where=where, group=group, bare=True)
        return [[(hit.doc_id, hit.score) for hit in hits] for hits in found]

    def search_text(
        self,
        queries: Sequence[str],
        *,
        k: int,
        where: str | None,
        group: bool,
        bare: bool,
        vectors: Vectors | None = None,
    ) -> list[list[Hit]]:
        """Return up to k hits for each query by its words, as the store scores them, and by `vectors` of the queries (Q, E), as `search` does.

        Raises:
            StoreError: the store is not searched by words.
            FilterError: as `search`.
        """
        self.need_text()
        node = self._condition(where)

        def find(query: str, width: int) -> Found:
            return self.store.search_text(query, k=width, where=node)

        found = [self._best(partial(find, query), k, group) for query in queries]
        hits = self._hits(found, "text", bare)
        return hits if vectors is None else self._scored(self._prepared(vectors), hits)

    def _scored(self, queries: Vectors, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        """Add to hits of queries (Q, E) what `search` would give them; a row that has gone meanwhile has none."""
        keys = _keys_of(hits)
        stored = self.store.vectors(keys) if keys else {}
        scorer = Scorer(self.settings.metric)

        def scored(query: Vectors, hit: Hit) -> Hit:
            vector = stored.get(_key_of(hit))
            if vector is None:
                return hit
            score = float(scorer.pairs(query[None], vector[None, None])[0, 0])
            return replace(hit, scores={**hit.scores, "dense": score})

        return [[scored(query, hit) for hit in some] for query, some in zip(queries, hits, strict=True)]

    def need_text(self) -> None:
        """Refuse a search by words where the store has none.

        Raises:
            StoreError: it has none.
        """
        if not self.store.has_text:
            raise StoreError(f"{self.path}: this store is not searched by words. Search it with --mode dense")

    def text_limits(self, queries: Sequence[str]) -> list[float]:
        return [self.store.text_limit(query) for query in queries]

    def fill(self, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        """Add to bare hits what their documents hold; one that has gone meanwhile is left out."""
        keys = _keys_of(hits)
        rows = self.store.fetch(keys) if keys else {}
        return [
            [
                replace(hit_of(rows[key], self.path), score=hit.score, scores=hit.scores)
                for hit in some
                if (key := _key_of(hit)) in rows
            ]
            for some in hits
        ]

    def _best(self, find: Callable[[int], Found], k: int, group: bool) -> Found:
        """Find up to k rows, or with `group` the best row of each of up to k documents."""
        width = 4 * k if group else k
        while True:
            found = best_first(find(width))
            if not group:
                return found[:k]
            best: dict[str, tuple[Key, float]] = {}
            for key, score in found:
                best.setdefault(key.doc_id, (key, score))
            if len(best) >= k or len(found) < width:
                return list(best.values())[:k]
            width *= 4

    def _hits(self, found: Sequence[Found], part: str, bare: bool) -> list[list[Hit]]:
        hits = [
            [Hit(key.doc_id, score, passage=key.passage, scores={part: score}) for key, score in some]
            for some in found
        ]
        return hits if bare else self.fill(hits)

    def _condition(self, where: str | None) -> Node | None:
        """Read a filter.

        Raises:
            FilterError: it is not in the language, names a field that no document has, or takes one for what it is not.
        """
        if where is None:
            return None
        if where not in self._trees:
            tree = parse_filter(where, sorted(self.info.fields))
            for use in uses_of(tree):
                kinds = self.info.fields.get(use.field.path[0], ()) if len(use.field.path) == 1 else None
                if kinds is not None and (problem := misuse_of_kinds(use, kinds, where)):
                    raise FilterError(problem)
            if self.settings.cutting and any(leaf.field.column == "text" for leaf in leaves(tree)):
                raise FilterError(
                    f"--where {where!r}: a store holds passages, not whole texts, and 'text' is the text of a document. "
                    "Search with --mode text, or filter by other fields"
                )
            self._trees[where] = tree
        return self._trees[where]


def _key_of(hit: Hit) -> Key:
    return Key(hit.doc_id, hit.passage)


def _keys_of(hits: Sequence[Sequence[Hit]]) -> list[Key]:
    """Return the rows of all hits, each once."""
    return list(dict.fromkeys(_key_of(hit) for some in hits for hit in some))


@dataclass(frozen=True)
class StoreSearch:
    """An open store with what searches it; as `embedkit.pipelines.searching.Search`."""

    index: StoreIndex
    retriever: Retriever
    embedder: AnyEmbedder | None
    reranker: Reranker | None


@contextmanager
def open_store_search(
    url: str,
    options: SearchOptions,
    computing: Computing,
    *,
    model: str | None = None,
    rerank: str | None = None,
    interactive: bool = False,
    ef: int | None = None,
) -> Iterator[StoreSearch]:
    """Open a store and load what its queries need; as `embedkit.pipelines.searching.open_search`.

    Raises:
        StoreError: nothing was pushed there, or the store fails.
        IndexMismatchError, CheckpointError, DeviceError: as `open_search`.
    """
    with closing(open_store(url)) as store:
        index = StoreIndex(store, read_info(store), ef=ef)
        if options.mode != "dense":
            index.need_text()
        loaded = load_models(index, options, computing, model=model, rerank=rerank, interactive=interactive)
        yield StoreSearch(index, Retriever(index, embed=loaded[0], reranker=loaded[1]), *loaded)
