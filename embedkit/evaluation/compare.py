"""Compare two systems query by query: the difference, whether it is chance, and which queries made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from embedkit.data.qrels import Qrels, Run, name_some, ranking
from embedkit.errors import EvaluationError
from embedkit.evaluation.metrics import Metric
from embedkit.evaluation.retrieval import evaluate_retrieval
from embedkit.evaluation.significance import (
    SAME,
    Interval,
    RandomisationTest,
    bootstrap_interval,
    randomisation_test,
)


@dataclass(frozen=True, slots=True)
class TopHit:
    """One hit of a query, with its judgement (None: not judged)."""

    doc_id: str
    score: float
    level: int | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class QueryChange:
    """The value of one query under both systems, with the hits of each where they are wanted."""

    query_id: str
    a: float
    b: float
    text: str = ""
    hits_a: tuple[TopHit, ...] = ()
    hits_b: tuple[TopHit, ...] = ()

    @property
    def difference(self) -> float:
        """What B gains over A; 0 where only rounding differs."""
        difference = self.b - self.a
        return 0.0 if abs(difference) <= SAME else difference


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """System B against system A by one metric. `changes` hold every query, the one that lost most first."""

    metric: str
    name_a: str
    name_b: str
    mean_a: float
    mean_b: float
    difference: float  # of the means, B minus A
    test: RandomisationTest
    interval: Interval
    changes: tuple[QueryChange, ...]

    @property
    def wins(self) -> int:
        """Count the queries where B is better."""
        return sum(change.difference > 0 for change in self.changes)

    @property
    def losses(self) -> int:
        """Count the queries where B is worse."""
        return sum(change.difference < 0 for change in self.changes)

    @property
    def ties(self) -> int:
        return len(self.changes) - self.wins - self.losses

    def worse(self, most: int) -> tuple[QueryChange, ...]:
        """Return the queries that lost most under B, the worst first."""
        return tuple(change for change in self.changes[:most] if change.difference < 0)

    def better(self, most: int) -> tuple[QueryChange, ...]:
        """Return the queries that gained most under B, the best first."""
        return tuple(change for change in self.changes[::-1][:most] if change.difference > 0)

    def as_dict(self) -> dict[str, Any]:  # Any: what JSON holds
        """Return what JSON needs, the counts included."""
        counts = {"wins": self.wins, "ties": self.ties, "losses": self.losses, "queries": len(self.changes)}
        return {**asdict(self), **counts}


def compare_values(
    a: Mapping[str, float],
    b: Mapping[str, float],
    *,
    metric: str,
    names: tuple[str, str] = ("A", "B"),
    seed: int = 0,
) -> Comparison:
    """Compare the values of the same queries under two systems.

    Raises:
        EvaluationError: the queries are not the same, there is none, or a value is not finite.
    """
    only_a, only_b = [each for each in a if each not in b], [each for each in b if each not in a]
    if only_a or only_b:
        raise EvaluationError(
            f"{metric}: {len(only_a)} queries have a value for {names[0]!r} alone ({name_some(only_a) or 'none'}), "
            f"{len(only_b)} for {names[1]!r} alone ({name_some(only_b) or 'none'}). A paired test needs both of "
            "every query: evaluate both on the same judgements"
        )
    changes = sorted(
        (QueryChange(query_id, a[query_id], b[query_id]) for query_id in a),
        key=lambda change: (change.difference, change.query_id),
    )
    differences = [change.difference for change in changes]
    test = randomisation_test(differences, seed=seed)
    return Comparison(
        metric=metric,
        name_a=names[0],
        name_b=names[1],
        mean_a=float(np.mean([change.a for change in changes])),
        mean_b=float(np.mean([change.b for change in changes])),
        difference=float(np.mean(differences)),
        test=test,
        interval=bootstrap_interval(differences, seed=seed),
        changes=tuple(changes),
    )


def compare_runs(
    qrels: Qrels,
    run_a: Run,
    run_b: Run,
    metric: Metric,
    *,
    names: tuple[str, str] = ("A", "B"),
    examples: int = 10,
    hits: int = 3,
    seed: int = 0,
) -> Comparison:
    """Compare two runs on the same judgements; the `examples` that changed most each way carry their top `hits`.

    Raises:
        EvaluationError: a run and the judgements have no query in common, or a score is not finite.
    """
    values = []
    for name, run in zip(names, (run_a, run_b), strict=True):
        try:
            values.append(evaluate_retrieval(qrels, run, [metric]).per_query[str(metric)])
        except EvaluationError as exc:
            raise EvaluationError(f"{name}: {exc}") from exc
    comparison = compare_values(*values, metric=str(metric), names=names, seed=seed)
    shown = {change.query_id for change in (*comparison.worse(examples), *comparison.better(examples))}
    changes = tuple(
        replace(
            change,
            hits_a=_top_hits(qrels, run_a, change.query_id, hits),
            hits_b=_top_hits(qrels, run_b, change.query_id, hits),
        )
        if change.query_id in shown
        else change
        for change in comparison.changes
    )
    return replace(comparison, changes=changes)


def _top_hits(qrels: Qrels, run: Run, query_id: str, most: int) -> tuple[TopHit, ...]:
    scores = run.get(query_id, {})
    judgements = qrels[query_id]
    return tuple(TopHit(doc_id, scores[doc_id], judgements.get(doc_id)) for doc_id in ranking(scores)[:most])


def wanted_documents(comparison: Comparison) -> set[str]:
    """Return the ids of all documents among the shown hits, to look up their texts."""
    return {hit.doc_id for change in comparison.changes for hit in (*change.hits_a, *change.hits_b)}


def add_texts(
    comparison: Comparison, *, queries: Mapping[str, str], documents: Mapping[str, str]
) -> Comparison:
    """Return the comparison with the texts of queries and shown hits; those not given stay empty."""

    def with_text(hits: tuple[TopHit, ...]) -> tuple[TopHit, ...]:
        return tuple(replace(hit, text=documents.get(hit.doc_id, hit.text)) for hit in hits)

    changes = tuple(
        replace(
            change,
            text=queries.get(change.query_id, change.text),
            hits_a=with_text(change.hits_a),
            hits_b=with_text(change.hits_b),
        )
        for change in comparison.changes
    )
    return replace(comparison, changes=changes)
