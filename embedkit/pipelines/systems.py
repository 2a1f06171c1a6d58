"""From a search pipeline to a run and its figures: what is measured of a system on a test set."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embedkit.data.beir import RetrievalSet
from embedkit.data.qrels import Run, find_unknown
from embedkit.data.records import Hit
from embedkit.evaluation.identical_ids import IGNORED
from embedkit.evaluation.metrics import Metric
from embedkit.evaluation.results import Evaluation, Kind, collect_provenance
from embedkit.evaluation.retrieval import evaluate_retrieval
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.reranking import rerank_hits
from embedkit.retrieval.retriever import Retriever
from embedkit.types import Computing

# Hits that are looked at for metrics that stop somewhere, and for those that read the whole ranking.
DEPTH, WHOLE_DEPTH = 100, 1000
# What many files and folders are called.
VAGUE_NAMES = ("model", "encoder", "train", "dev", "test")
# Queries searched together: one product against all vectors instead of one each.
BATCH_QUERIES = 256


@dataclass(frozen=True)
class Found:
    """The hits of every query of a set, best first; how long they were reranked and how many, 0 where not at all.

    `ignored` counts the hits that were left out for the id of their query; None where such hits count.
    """

    hits: Mapping[str, Sequence[Hit]]
    rerank_seconds: float = 0.0
    reranked_pairs: int = 0
    ignored: int | None = None

    def run(self) -> Run:
        """Return the hits as a run; of several passages of a document the best counts."""
        run: dict[str, dict[str, float]] = {}
        for query_id, hits in self.hits.items():
            scores = run.setdefault(query_id, {})
            for hit in hits:
                scores.setdefault(hit.doc_id, hit.score)
        return run


def depth_of(metrics: Sequence[Metric]) -> int:
    """Return how many hits the metrics look at."""
    return max(DEPTH, *(WHOLE_DEPTH if metric.k is None else metric.k for metric in metrics))


def search_all(
    retriever: Retriever,
    queries: Mapping[str, str],
    options: SearchOptions,
    *,
    ignore_identical_ids: bool = False,
) -> Found:
    """Search every query (id -> text), with as many hits of other ids as of all where those with its own are left out."""
    if not ignore_identical_ids:
        return _search_all(retriever, queries, options)
    wider = replace(options, k=options.k + 1, candidates=max(options.k + 1, options.candidates))
    hits = _search_all(retriever, queries, wider).hits
    kept = {query_id: [hit for hit in listed if hit.doc_id != query_id] for query_id, listed in hits.items()}
    ignored = sum(len(hits[query_id]) - len(listed) for query_id, listed in kept.items())
    return Found({query_id: listed[: options.k] for query_id, listed in kept.items()}, ignored=ignored)


def _search_all(retriever: Retriever, queries: Mapping[str, str], options: SearchOptions) -> Found:
    ids = list(queries)
    hits: dict[str, Sequence[Hit]] = {}
    for start in range(0, len(ids), BATCH_QUERIES):
        batch = ids[start : start + BATCH_QUERIES]
        found = retriever.search([queries[query_id] for query_id in batch], options)
        hits.update(zip(batch, found, strict=True))
    return Found(hits)


def rerank_all(
    reranker: Reranker,
    queries: Mapping[str, str],
    found: Found,
    *,
    candidates: int,
    weight: float | None = None,
) -> Iterator[Found]:
    """Rerank the first `candidates` hits of every query; yields what is done after each, the last has them all."""
    seconds, pairs = 0.0, 0
    hits: dict[str, Sequence[Hit]] = {}
    for query_id, before in found.hits.items():
        started = time.perf_counter()
        reranked = rerank_hits(reranker, queries[query_id], before, candidates=candidates, weight=weight)
        seconds += time.perf_counter() - started
        hits[query_id] = reranked.hits
        pairs += reranked.depth
        yield Found(hits, seconds, pairs, found.ignored)


def unknown_notes(test: RetrievalSet, doc_ids: Collection[str]) -> tuple[str, ...]:
    """Say which judgements point nowhere.

    Raises:
        EvaluationError: all of them do.
    """
    return find_unknown(test.qrels, query_ids=test.queries.keys(), doc_ids=doc_ids).notes()


def evaluate_found(
    test: RetrievalSet,
    found: Found,
    metrics: Sequence[Metric],
    *,
    system: str,
    command: Sequence[str],
    fingerprint: str = "",
    kind: Kind = "retrieval",
    notes: Sequence[str] = (),
    data: Sequence[Path] | None = None,
) -> Evaluation:
    """Measure the hits of a system. What was reranked also has its `ms/query` and `pairs/s`.

    Raises:
        EvaluationError: hits and judgements have nothing in common, or a score is not finite.
    """
    result = evaluate_retrieval(test.qrels, found.run(), metrics)
    values = dict(result.means)
    if found.reranked_pairs:
        values["ms/query"] = 1000 * found.rerank_seconds / len(found.hits)
        values["pairs/s"] = found.reranked_pairs / found.rerank_seconds
    return Evaluation(
        kind=kind,
        system=system,
        dataset=test.name if test.split == "test" else f"{test.name}/{test.split}",
        values=values,
        provenance=collect_provenance(
            command=command, data=test.files if data is None else data, fingerprint=fingerprint
        ),
        counts={
            "queries": result.num_queries,
            "reranked pairs": found.reranked_pairs,
            **({} if found.ignored is None else {IGNORED: found.ignored}),
        },
        # The queries without a text are named by `notes` already.
        notes=(*notes, *result.notes()),
        per_query=result.per_query,
    )


def full_name(
    name: str, computing: Computing, *, merge_tokens: float | None = None, recursions: int | None = None
) -> str:
    """Say of a model also what it was computed in, where that is not its own precision, how its tokens were merged, and how deep it ran."""
    if computing.precision not in ("auto", "fp32"):
        name += f" {computing.precision}"
    name += f" merging {merge_tokens:g}" if merge_tokens else ""
    return name if recursions is None else f"{name} recursions {recursions}"


def labels(paths: Sequence[str | Path] | Sequence[str] | Sequence[Path]) -> list[str]:
    """Name files and folders by the shortest end of their paths that tells them apart.

    A name such as `model` or `test.tsv` says nothing alone: it goes with the folder it lies in.

    >>> labels(["runs/a/model", "base"]), labels(["x/v1", "y/v1"]), labels(["stsb/test.tsv"])
    (['a/model', 'base'], ['x/v1', 'y/v1'], ['stsb/test.tsv'])
    """
    parts = [Path(path).absolute().parts for path in paths]
    found = []
    for own in parts:
        size = 2 if own[-1].partition(".")[0] in VAGUE_NAMES else 1
        while size < len(own) and sum(other[-size:] == own[-size:] for other in set(parts)) > 1:
            size += 1
        found.append("/".join(own[-size:]))
    return found
