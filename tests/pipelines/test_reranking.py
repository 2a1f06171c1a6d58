"""The gain and cost of reranking, by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.errors import EvaluationError
from embedkit.pipelines.reranking import evaluate_reranking
from embedkit.reranking.requests import Request
from embedkit.retrieval.reranker import Reranker


class ByLength(Reranker):
    name = "by length"
    weight = 1.0

    def score(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([len(text) for text in texts], dtype=np.float32)


def request(query_id: str, texts: Sequence[str]) -> Request:
    candidates = [{"id": text, "score": 1.0 - i / 10} for i, text in enumerate(texts)]
    return Request("q", texts, {"query_id": query_id}, candidates)


def test_gain_and_cost_by_hand() -> None:
    """The relevant text stands second of three, and first of two; the reranker puts the longest first.

    Before: reciprocal ranks 1/2 and 1, mean 0.75. After: 1 and 1/2, again 0.75 for the two, 1 and 0.5 each.
    Five pairs in two seconds are 2.5 a second, one query takes 1,000 ms.
    """
    times = iter([10.0, 12.0])
    result = evaluate_reranking(
        ByLength(),
        [request("a", ["x", "xxx", "xx"]), request("b", ["y", "yy"])],
        {"a": {"xxx": 1}, "b": {"y": 1}},
        clock=lambda: next(times),
    )
    assert result.before.means["mrr@10"] == pytest.approx(0.75)
    assert result.after.per_query["mrr@10"] == {"a": 1, "b": 0.5}
    assert set(result.after.means) == {"map", "mrr@10", "ndcg@10"}
    assert (result.num_queries, result.num_pairs) == (2, 5)
    assert result.pairs_per_second == 2.5
    assert result.milliseconds_per_query == 1000
    assert list(result.run["a"]) == ["xxx", "xx", "x"]


def test_depth_leaves_what_is_below_in_its_place() -> None:
    result = evaluate_reranking(
        ByLength(), [request("a", ["x", "xx", "xxx"])], {"a": {"xxx": 1}}, candidates=2
    )
    assert result.run == {"a": {"xx": 2.0, "x": 1.0, "xxx": 0.0}}
    assert result.num_pairs == 2
    assert result.after.means["mrr@10"] == pytest.approx(1 / 3)


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no request; a run has at least one query"):
        evaluate_reranking(ByLength(), [], {"a": {"x": 1}})
    with pytest.raises(EvaluationError, match="none of the 1 judged queries"):
        evaluate_reranking(ByLength(), [request("b", ["x"])], {"a": {"x": 1}})
