"""What the hits of a query are worth: how strong each of them is, and which are no better than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from embedkit.data.records import titled_text
from embedkit.retrieval.strength import CosineNoise, Scale, Yardstick
from indexes import mark_words

if TYPE_CHECKING:
    from embedkit.data.records import Hit
    from embedkit.pipelines.embedders import AnyEmbedder
    from embedkit.retrieval.options import SearchOptions
    from embedkit.retrieval.reranker import Reranker
    from embedkit.retrieval.retriever import Retriever
    from indexes import Coverage


class SearchedIndex(Protocol):
    """What is searched, and tells what its scores mean: an index, or a store."""

    def __len__(self) -> int: ...

    @property
    def score_limit(self) -> float | None: ...

    @property
    def noise(self) -> CosineNoise | None:
        """How alike the vectors there are by chance; None where they are too few to say."""
        ...

    def count_rows(self, where: str | None = None) -> int: ...

    def take_coverage(self) -> Coverage | None: ...

    def text_limits(self, queries: Sequence[str]) -> list[float]: ...


class OpenSearch(Protocol):
    """Something open with what searches it, such as `embedkit.pipelines.searching.Search`."""

    @property
    def index(self) -> SearchedIndex: ...

    @property
    def retriever(self) -> Retriever: ...

    @property
    def embedder(self) -> AnyEmbedder | None: ...

    @property
    def reranker(self) -> Reranker | None: ...


@dataclass(frozen=True)
class JudgedHit:
    """A hit, how strong it is, from 0 (chance) to 1 (as relevant documents typically are), and whether it is no answer at all."""

    hit: Hit
    strength: float
    weak: bool = False


def judge(opened: OpenSearch, query: str, hits: Sequence[Hit], wanted: SearchOptions) -> list[JudgedHit]:
    """Judge the hits of a query, in their order.

    Weak are those of dense and hybrid search whose cosine, share of BM25 and reranker's score are what chance gives; in dense search,
    which has no BM25, a word of the query saves a hit. Nothing is weak where `min_score` says what counts, nor where scores have no
    scale (vectors that are compared by dot or l2, several indexes): there a strength is the part of the best hit's score.
    """
    if not hits:
        return []
    if opened.retriever.joined or (wanted.mode != "text" and opened.index.score_limit is None):
        best = hits[0].score
        return [JudgedHit(hit, max(0.0, hit.score / best) if best > 0 else 0.0) for hit in hits]
    yardstick = yardstick_of(opened, query, wanted)
    strengths = [_strength(opened.reranker, yardstick, hit) for hit in hits]
    if wanted.mode == "text" or wanted.min_score is not None:
        return [JudgedHit(hit, strength) for hit, strength in zip(hits, strengths, strict=True)]
    weak = [
        yardstick.is_chance(hit.scores) and not ("rerank" in hit.scores and strength)
        for hit, strength in zip(hits, strengths, strict=True)
    ]
    if wanted.mode == "dense" and any(weak):
        marked = mark_words(query, [titled_text(hit.title, hit.text) for hit in hits])
        weak = [is_weak and not spans for is_weak, spans in zip(weak, marked, strict=True)]
    return [
        JudgedHit(hit, 0.0 if is_weak else strength, is_weak)
        for hit, strength, is_weak in zip(hits, strengths, weak, strict=True)
    ]


def strong_hits(opened: OpenSearch, query: str, hits: Sequence[Hit], wanted: SearchOptions) -> list[Hit]:
    """Return the hits of a query that are not weak, in their order."""
    return [judged.hit for judged in judge(opened, query, hits, wanted) if not judged.weak]


def _strength(reranker: Reranker | None, yardstick: Yardstick, hit: Hit) -> float:
    if reranker is not None and "rerank" in hit.scores:
        return reranker.strength(hit.scores["rerank"])
    return yardstick.strength(hit.scores)


def yardstick_of(opened: OpenSearch, query: str, wanted: SearchOptions) -> Yardstick:
    """Return what measures the hits of a query here; not where scores have no scale (`Index.score_limit`)."""
    return Yardstick(
        cosines=None if wanted.mode == "text" else _cosine_scale(opened, wanted),
        text_limit=0.0 if wanted.mode == "dense" else opened.index.text_limits([query])[0],
        weights=(wanted.dense_weight, wanted.text_weight),
    )


def _cosine_scale(opened: OpenSearch, wanted: SearchOptions) -> Scale:
    """Return what cosines mean among the vectors that were searched.

    The sample texts may be nearer to each other than those of the index are, where their language is not the model's: so vectors of the
    index are compared as well, and the lower of the two counts. Of texts about one subject it is the sample's.
    """
    from embedkit.encoding.embedder import Embedder
    from embedkit.encoding.noise import cosine_noise

    assert isinstance(opened.embedder, Embedder)  # whatever has cosines for scores has one
    count = opened.index.count_rows(wanted.where)
    scales = [cosine_noise(opened.embedder.encoder).scale(count)]
    if (noise := opened.index.noise) is not None:
        scales.append(noise.scale(count))
    return min(scales, key=lambda scale: scale.chance)
