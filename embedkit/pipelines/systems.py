"""From a search pipeline to a run and its figures: what is measured of a system on a test set."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
    """What was found for every query of a set; how long it was reranked and how many hits, 0 where not at all.

    `hits` are what can be reranked, best first; None where only the run was asked for: with their texts they take much memory.
    `ignored` counts the hits that were left out for the id of their query; None where such hits count.
    """

    run: Run
    hits: Mapping[str, Sequence[Hit]] | None = None
    rerank_seconds: float = 0.0
    reranked_pairs: int = 0
    ignored: int | None = None


def depth_of(metrics: Sequence[Metric]) -> int:
    """Return how many hits the metrics look at."""
    return max(DEPTH, *(WHOLE_DEPTH if metric.k is None else metric.k for metric in metrics))


def search_all(
    retriever: Retriever,
    queries: Mapping[str, str],
    options: SearchOptions,
    *,
    ignore_identical_ids: bool = False,
    keep_hits: bool = False,
) -> Found:
    """Search every query (id -> text), with as many hits of other ids as of all where those with its own are left out.

    `keep_hits` where they are to be reranked.
    """
    wanted = options
    if ignore_identical_ids:
        wanted = replace(options, k=options.k + 1, candidates=max(options.k + 1, options.candidates))
    ids = list(queries)
    run: dict[str, dict[str, float]] = {}
    hits: dict[str, Sequence[Hit]] = {}
    ignored = 0
    for start in range(0, len(ids), BATCH_QUERIES):
        batch = ids[start : start + BATCH_QUERIES]
        texts = [queries[query_id] for query_id in batch]
        if not keep_hits:
            named = retriever.search_ids(texts, wanted)
        else:
            found = retriever.search(texts, wanted)
            named = [[(hit.doc_id, hit.score) for hit in listed] for listed in found]
        for number, query_id in enumerate(batch):
            own = query_id if ignore_identical_ids else None
            kept = [each for each in named[number] if each[0] != own]
            ignored += len(named[number]) - len(kept)
            run[query_id] = _best_of_each(kept[: options.k])
            if keep_hits:
                hits[query_id] = [hit for hit in found[number] if hit.doc_id != own][: options.k]
    return Found(run, hits if keep_hits else None, ignored=ignored if ignore_identical_ids else None)


def _best_of_each(named: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the score of each document: of several passages the best, which comes first."""
    scores: dict[str, float] = {}
    for doc_id, score in named:
        scores.setdefault(doc_id, score)
    return scores


def rerank_all(
    reranker: Reranker,
    queries: Mapping[str, str],
    found: Found,
    *,
    candidates: int,
    weight: float | None = None,
) -> Iterator[Found]:
    """Rerank the first `candidates` hits of every query; yields what is done after each, the last has them all."""
    assert found.hits is not None  # kept for this
    seconds, pairs = 0.0, 0
    run: dict[str, dict[str, float]] = {}
    for query_id, before in found.hits.items():
        started = time.perf_counter()
        reranked = rerank_hits(reranker, queries[query_id], before, candidates=candidates, weight=weight)
        seconds += time.perf_counter() - started
        run[query_id] = _best_of_each((hit.doc_id, hit.score) for hit in reranked.hits)
        pairs += reranked.depth
        yield Found(run, None, seconds, pairs, found.ignored)


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
    result = evaluate_retrieval(test.qrels, found.run, metrics)
    values = dict(result.means)
    if found.reranked_pairs:
        values["ms/query"] = 1000 * found.rerank_seconds / len(found.run)
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
