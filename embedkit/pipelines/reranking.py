"""What a reranker gains over the run it reorders, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedkit.data.qrels import Qrels
from embedkit.evaluation.metrics import Metric
from embedkit.evaluation.retrieval import RetrievalResult, evaluate_retrieval
from embedkit.reranking.requests import Request, answer
from embedkit.retrieval.reranker import Reranker

RERANKING_METRICS = (Metric("map"), Metric("mrr", 10), Metric("ndcg", 10))


@dataclass(frozen=True, kw_only=True)
class RerankingResult:
    """A run before and after reranking; `run` is the one after, query id -> document id -> score."""

    before: RetrievalResult
    after: RetrievalResult
    run: dict[str, dict[str, float]]
    num_queries: int
    num_pairs: int
    seconds: float

    @property
    def milliseconds_per_query(self) -> float:
        return 1000 * self.seconds / self.num_queries

    @property
    def pairs_per_second(self) -> float:
        return self.num_pairs / self.seconds


def evaluate_reranking(
    reranker: Reranker,
    requests: Sequence[Request],
    qrels: Qrels,
    *,
    metrics: Sequence[Metric] = RERANKING_METRICS,
    candidates: int | None = None,
    budget_seconds: float | None = None,
    weight: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> RerankingResult:
    """Rerank the queries of a run (`requests_of_run`) and measure both orders against judgements.

    Documents that the first stage did not find stay unfound: recall is that of the run.

    Raises:
        EvaluationError: judgements and run have nothing in common.
        ValueError: there is no request.
    """
    if not requests:
        raise ValueError("there is no request; a run has at least one query")
    before = {
        str(request.row["query_id"]): {row["id"]: float(row["score"]) for row in request.candidates}
        for request in requests
    }
    started = clock()
    replies = list(
        answer(reranker, requests, candidates=candidates, budget_seconds=budget_seconds, weight=weight)
    )
    seconds = clock() - started
    after = {str(reply.request.row["query_id"]): reply.run_scores() for reply in replies}
    return RerankingResult(
        before=evaluate_retrieval(qrels, before, metrics),
        after=evaluate_retrieval(qrels, after, metrics),
        run=after,
        num_queries=len(requests),
        num_pairs=sum(len(reply.scores) for reply in replies),
        seconds=seconds,
    )
