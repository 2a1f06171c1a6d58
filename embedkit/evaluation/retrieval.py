"""Evaluate a run against judgements: every metric, query by query, and what did not count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedkit.data.qrels import Qrels, Run, name_some
from embedkit.errors import EvaluationError
from embedkit.evaluation.metrics import Metric, metric_value, standing

STANDARD_METRICS = (
    Metric("ndcg", 10),
    Metric("map", 100),
    Metric("mrr", 10),
    Metric("recall", 100),
    Metric("p", 10),
    Metric("success", 1),
)


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """Values and means over all judged queries, by metric as written (`ndcg@10`).

    A judged query without hits or without relevant documents counts as 0, the first as trec_eval does with -c.
    """

    per_query: Mapping[str, Mapping[str, float]]  # metric -> query_id -> value
    means: Mapping[str, float]  # metric -> mean over `num_queries`
    num_queries: int
    without_hits: tuple[str, ...]
    without_relevant: tuple[str, ...]
    not_judged: tuple[str, ...]
    num_relevant_retrieved: int

    def notes(self) -> tuple[str, ...]:
        """Say what the means rest on, in a sentence for each group of odd queries; nothing where all is well."""
        groups = (
            (self.without_hits, "of {} judged queries have no hits in the run and count as 0"),
            (self.without_relevant, "of {} judged queries have no relevant document and count as 0"),
            (self.not_judged, "queries of the run are not judged and do not count"),
        )
        notes = [
            f"{len(ids)} {text.format(self.num_queries)}: {name_some(ids)}" for ids, text in groups if ids
        ]
        if not self.num_relevant_retrieved:
            notes.append(
                "no relevant document is anywhere in the run: check that both name documents of one collection"
            )
        return tuple(notes)


def evaluate_retrieval(
    qrels: Qrels, run: Run, metrics: Sequence[Metric] = STANDARD_METRICS
) -> RetrievalResult:
    """Compute each metric for each judged query.

    Raises:
        EvaluationError: no judged query is in the run, no query has a relevant document, or a score is not finite.
    """
    if not metrics:
        raise ValueError("no metric was given; name at least one, as Metric('ndcg', 10)")
    _refuse_strangers(qrels, run)
    names = [str(metric) for metric in metrics]
    per_query: dict[str, dict[str, float]] = {name: {} for name in names}
    relevant_retrieved = 0
    for query_id, judgements in qrels.items():
        try:
            found = standing(judgements, run.get(query_id, {}))
        except EvaluationError as exc:
            raise EvaluationError(f"query {query_id!r}: {exc}") from exc
        relevant_retrieved += len(found.ranks)
        for name, metric in zip(names, metrics, strict=True):
            per_query[name][query_id] = metric_value(metric, found)
    return RetrievalResult(
        per_query=per_query,
        means={name: float(np.mean(list(values.values()))) for name, values in per_query.items()},
        num_queries=len(qrels),
        without_hits=tuple(query_id for query_id in qrels if not run.get(query_id)),
        without_relevant=tuple(query_id for query_id in qrels if not _has_relevant(qrels, query_id)),
        not_judged=tuple(query_id for query_id in run if query_id not in qrels),
        num_relevant_retrieved=relevant_retrieved,
    )


def _has_relevant(qrels: Qrels, query_id: str) -> bool:
    return any(level > 0 for level in qrels[query_id].values())


def _refuse_strangers(qrels: Qrels, run: Run) -> None:
    """Refuse what would make every value 0 for a reason that is not the system's."""
    if not any(_has_relevant(qrels, query_id) for query_id in qrels):
        raise EvaluationError(
            f"none of the {len(qrels)} judged queries has a relevant document (level 1 or more), so every value "
            "would be 0. Check the level column of the judgements"
        )
    if not any(run.get(query_id) for query_id in qrels):
        raise EvaluationError(
            f"none of the {len(qrels)} judged queries ({name_some(list(qrels))}) has hits in the run, which holds "
            f"{len(run)} queries ({name_some(list(run)) or 'none'}). Check that the two belong together"
        )
