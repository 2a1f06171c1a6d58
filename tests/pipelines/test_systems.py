from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedkit.data.beir import load_retrieval_set, load_topic_set, read_query_texts
from embedkit.data.records import Hit
from embedkit.errors import RecordError
from embedkit.evaluation.metrics import Metric
from embedkit.pipelines.systems import (
    depth_of,
    evaluate_found,
    full_name,
    labels,
    rerank_all,
    search_all,
)
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.retriever import Retriever
from embedkit.types import Computing
from tests.judged import QRELS, QUERIES, write_judged_set


class Words:
    """A search by words whose hits are written down here; it counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def search_ids(
        self, queries: NDArray[np.float32], *, k: int, where: str | None, group: bool
    ) -> list[list[tuple[str, float]]]:
        raise AssertionError("nothing is searched by meaning here")

    def search_text(
        self,
        queries: Sequence[str],
        *,
        k: int,
        where: str | None,
        group: bool,
        bare: bool,
        vectors: NDArray[np.float32] | None = None,
    ) -> list[list[Hit]]:
        self.asked += len(queries)
        return [[Hit("d1", 2.0, "one"), Hit("d4", 1.0, "four")][:k] for _ in queries]

    def text_limits(self, queries: Sequence[str]) -> list[float]:
        raise AssertionError("nothing is fused here")

    @property
    def score_limit(self) -> float | None:
        raise AssertionError("nothing is fused here")

    def search(
        self, queries: NDArray[np.float32], *, k: int, where: str | None, group: bool, bare: bool
    ) -> list[list[Hit]]:
        raise AssertionError("nothing is searched by meaning here")

    def fill(self, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        raise AssertionError("nothing is fused here")


class Backwards(Reranker):
    """Turns every list round."""

    name = "backwards"
    weight = 1.0

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.arange(len(texts), dtype=np.float32)


def test_every_query_is_searched_once_and_reranked_with_its_cost(tmp_path: Path) -> None:
    test = load_retrieval_set(write_judged_set(tmp_path / "mini"))
    words = Words()
    found = search_all(Retriever(words), test.queries, SearchOptions(mode="text"), keep_hits=True)
    assert words.asked == len(QRELS)
    assert found.run == search_all(Retriever(words), test.queries, SearchOptions(mode="text")).run
    assert found.run["q3"] == {"d1": 2.0, "d4": 1.0}
    steps = list(rerank_all(Backwards(), test.queries, found, candidates=2))
    assert [step.reranked_pairs for step in steps] == [2, 4, 6]
    reranked = steps[-1]
    assert sorted(reranked.run["q3"], key=lambda doc_id: -reranked.run["q3"][doc_id]) == ["d4", "d1"]
    shared = {"metrics": [Metric("success", 1)], "system": "x", "command": ["embedkit"]}
    before = evaluate_found(test, found, **shared)  # type: ignore[arg-type] # the three belong there
    after = evaluate_found(test, reranked, **shared, kind="reranking")  # type: ignore[arg-type] # as above
    # d1 answers q1 alone; d4 answers q2 and q3.
    assert before.values == {"success@1": pytest.approx(1 / 3)}
    assert after.values["success@1"] == pytest.approx(2 / 3)
    assert after.values["ms/query"] == pytest.approx(1000 * reranked.rerank_seconds / 3)
    assert before.counts == {"queries": 3, "reranked pairs": 0}


def test_the_best_passage_of_a_document_counts() -> None:
    class Passages(Words):
        def search_text(self, queries: Sequence[str], **_: Any) -> list[list[Hit]]:  # Any: options
            return [[Hit("a", 0.9, passage=3), Hit("b", 0.8), Hit("a", 0.7)] for _ in queries]

    found = search_all(Retriever(Passages()), {"q": "a query"}, SearchOptions(mode="text"))
    assert found.run == {"q": {"a": 0.9, "b": 0.8}}


def test_as_many_hits_are_taken_as_the_metrics_read() -> None:
    assert depth_of([Metric("ndcg", 10)]) == 100
    assert depth_of([Metric("recall", 500), Metric("ndcg", 10)]) == 500
    assert depth_of([Metric("map")]) == 1000


def test_a_model_is_named_with_what_makes_its_figures_others() -> None:
    assert full_name("minilm", Computing(precision="auto")) == full_name(
        "minilm", Computing(precision="fp32")
    )
    assert full_name("minilm", Computing(precision="bf16"), merge_tokens=0.1) == "minilm bf16 merging 0.1"


def test_labels_are_as_short_as_can_be() -> None:
    assert labels(["a/b/model", "a/c/model", "x/minilm"]) == ["b/model", "c/model", "minilm"]
    assert labels(["p/a/b", "q/a/b"]) == ["p/a/b", "q/a/b"]
    assert labels(["same/thing", "same/thing"]) == ["thing", "thing"]


def test_queries_come_as_rows_topics_or_tabs(tmp_path: Path) -> None:
    rows, tabs, header = tmp_path / "q.jsonl", tmp_path / "q.tsv", tmp_path / "h.tsv"
    rows.write_text('{"_id": "1", "text": "dog"}\n', encoding="utf-8")
    tabs.write_text("1\tdog\n", encoding="utf-8")
    header.write_text("_id\ttext\n1\tdog\n", encoding="utf-8")
    topics = tmp_path / "topics.txt"
    topics.write_text("<top>\n<num> Number: 1\n<title> dog\n</top>\n", encoding="utf-8")
    for path in (rows, tabs, header, topics):
        assert read_query_texts(path) == {"1": "dog"}
    rows.write_text('{"_id": "1", "text": "dog"}\n{"_id": "1", "text": "cat"}\n', encoding="utf-8")
    with pytest.raises(
        RecordError, match=r"q.jsonl:2: the query id '1' occurs twice; it is also at .*q.jsonl:1"
    ):
        read_query_texts(rows)


def test_single_files_make_a_set(tmp_path: Path) -> None:
    folder = write_judged_set(tmp_path / "mini")
    found = load_topic_set(folder / "queries.jsonl", folder / "qrels" / "test.tsv")
    assert (found.name, found.corpus) == ("test.tsv", None)
    assert found.qrels == QRELS
    assert found.queries == {key: QUERIES[key] for key in QRELS}
    assert [path.name for path in found.files] == ["queries.jsonl", "test.tsv"]
