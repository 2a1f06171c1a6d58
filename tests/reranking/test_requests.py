"""What is reranked: JSON lines and TREC runs; nothing is dropped, whatever is missing is named."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.data.trec import read_run
from embedkit.errors import EvaluationError, RecordError
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.reranking.requests import Request, answer, read_requests, requests_of_run, trec_lines
from embedkit.retrieval.reranker import Reranker
from tests.tiny_cross_encoder import QUERY, TEXTS, write_tiny_cross_encoder


class ByLength(Reranker):
    """Likes long texts."""

    name = "by length"
    weight = 1.0

    def score(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([len(text) for text in texts], dtype=np.float32)


def requests(*rows: object) -> list[Request]:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    return list(read_requests(io.BytesIO(lines.encode()), "stdin"))


def test_candidates_come_back_reordered_with_all_their_keys_and_both_scores() -> None:
    row = {
        "query": "q",
        "lang": "en",
        "candidates": [{"id": 1, "text": "a", "score": 0.9}, {"id": 2, "text": "bb", "score": 0.5, "x": [1]}],
    }
    (reply,) = answer(ByLength(), requests(row))
    assert reply.row() == {
        "query": "q",
        "lang": "en",
        "candidates": [
            {"id": 2, "text": "bb", "score": 0.5, "x": [1], "rerank_score": 2.0},
            {"id": 1, "text": "a", "score": 0.9, "rerank_score": 1.0},
        ],
    }
    assert len(reply.row(top_k=1)["candidates"]) == 1


def test_plain_texts_titles_and_hits_are_read() -> None:
    (first, second) = requests(
        {"query": "q", "candidates": ["a", "b"]}, {"query": "q", "hits": [{"title": "T", "text": "x"}]}
    )
    assert list(first.texts) == ["a", "b"]
    assert list(second.texts) == ["T x"]
    (reply,) = answer(ByLength(), [second])
    assert reply.row() == {"query": "q", "hits": [{"title": "T", "text": "x", "rerank_score": 3.0}]}


@pytest.mark.parametrize("key", ["candidates", "hits", "documents", "texts", "passages"])
def test_the_texts_go_by_any_of_their_usual_names(key: str) -> None:
    """As services that rerank take them: strings, or objects with a text."""
    line = json.dumps({"query": "q", key: ["a", {"text": "b", "title": "T"}]})
    (request,) = read_requests(io.BytesIO(line.encode()), "x")
    assert (request.query, list(request.texts), request.key) == ("q", ["a", "T b"], key)


def test_hits_of_a_search_become_a_request_per_query() -> None:
    def hit(query_id: str, query: str, doc_id: str, text: str) -> dict[str, object]:
        return {"query_id": query_id, "query": query, "rank": 1, "id": doc_id, "score": 0.5, "text": text}

    (first, second, third) = requests(
        hit("1", "q", "a", "x"),
        hit("1", "q", "b", "xyz"),
        hit("2", "q", "c", "xy"),
        {"query": "r", "candidates": ["z"]},
    )
    (reply,) = answer(ByLength(), [first])
    rows = [
        {"rank": 1, "id": "b", "score": 0.5, "text": "xyz", "rerank_score": 3.0},
        {"rank": 1, "id": "a", "score": 0.5, "text": "x", "rerank_score": 1.0},
    ]
    assert reply.row() == {"query_id": "1", "query": "q", "candidates": rows}
    assert (second.query, list(second.texts), second.row["query_id"]) == ("q", ["xy"], "2")
    assert (third.query, list(third.texts)) == ("r", ["z"])


def test_hits_without_their_query_are_refused_where_they_stand() -> None:
    row = {"query_id": "1", "query": "q", "id": "a", "text": "x"}
    with pytest.raises(
        RecordError, match=r"stdin:2: a hit of query '2' without the query's text; .* with --run"
    ):
        requests(row, {"query_id": "2", "id": "b", "text": "y"})


def test_empty_candidate_lists_stay_in_their_places(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "candidates": []},
        {"query": QUERY, "candidates": list(TEXTS)},
        {"query": "b", "candidates": []},
    ]
    model = CrossEncoder.load(write_tiny_cross_encoder(tmp_path / "m"), device="cpu")
    for reranker in (ByLength(), model):
        replies = [reply.row() for reply in answer(reranker, requests(*rows))]
        assert [reply["query"] for reply in replies] == ["a", QUERY, "b"]
        assert [len(reply["candidates"]) for reply in replies] == [0, len(TEXTS), 0]


def test_cross_encoder_answers_together_as_one_by_one(tmp_path: Path) -> None:
    model = CrossEncoder.load(write_tiny_cross_encoder(tmp_path / "m"), device="cpu")
    given = requests(*({"query": f"{QUERY} {i}", "candidates": list(TEXTS[: i + 1])} for i in range(5)))
    for request, reply in zip(given, answer(model, given, candidates=3), strict=True):
        wanted = model.score(request.query, request.texts[:3])
        np.testing.assert_allclose(reply.scores, wanted, atol=2e-6)
        assert len(reply.row()["candidates"]) == len(request.texts)


def test_any_reranker_gets_the_whole_stream_at_once() -> None:
    class Together(ByLength):
        def score_groups(
            self, groups: Iterable[tuple[str, Sequence[str]]]
        ) -> Iterator[npt.NDArray[np.float32]]:
            self.queries = [query for query, _ in groups]
            yield from (np.zeros(1, np.float32) for _ in self.queries)

    reranker = Together()
    given = requests(*({"query": query, "candidates": ["a", "b"]} for query in "xyz"))
    assert len(list(answer(reranker, given, candidates=1))) == 3
    assert reranker.queries == ["x", "y", "z"]
    with pytest.raises(ValueError, match=r"scores of shape \(1,\) for 2 texts"):
        list(answer(reranker, given))


def test_candidates_beyond_the_depth_follow_without_a_score() -> None:
    (reply,) = answer(
        ByLength(), requests({"query": "q", "candidates": ["a", "bb", "cccc", "ddd"]}), candidates=2
    )
    assert [(c["text"], c["rerank_score"]) for c in reply.row()["candidates"]] == [
        ("bb", 2.0),
        ("a", 1.0),
        ("cccc", None),
        ("ddd", None),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "stdin:2: not JSON"),
        ("[" * 100_000, "stdin:2: not JSON"),
        ("[1]", "stdin:2: wanted a string 'query' and a list 'candidates' .*; keys here: none"),
        ('{"q": 1, "candidates": []}', "stdin:2: wanted .*; keys here: q, candidates"),
        ('{"query": "q", "candidates": "a"}', "stdin:2: wanted"),
        ('{"query": "q"}', "stdin:2: wanted"),
        ('{"query": "q", "candidates": ["a", {"id": 1}]}', r"stdin:2: candidates\[1\] has no string 'text'"),
        ('{"query": "q", "candidates": [null]}', r"stdin:2: candidates\[0\] has no string 'text'"),
    ],
)
def test_lines_that_cannot_be_read_are_named(line: str, message: str) -> None:
    stream = io.BytesIO(f'{{"query": "q", "candidates": []}}\n{line}\n'.encode())
    with pytest.raises(RecordError, match=message):
        list(read_requests(stream, "stdin"))


@pytest.fixture
def run_files(tmp_path: Path) -> Path:
    (tmp_path / "run.trec").write_text(
        "q2 Q0 d1 1 0.9 bm25\nq2 Q0 d3 2 0.8 bm25\nq1 Q0 d2 1 0.7 bm25\n", encoding="utf-8"
    )
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "one"}\n{"_id": "q2", "text": "two"}\n{"_id": "q3", "text": "three"}\n',
        encoding="utf-8",
    )
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "d1", "title": "T", "text": "x"}\n{"_id": "d2", "text": "y"}\n{"_id": "d3", "text": "long text"}\n',
        encoding="utf-8",
    )
    return tmp_path


def test_run_is_reranked_with_the_texts_of_the_collection(run_files: Path) -> None:
    given = requests_of_run(
        run_files / "run.trec", [str(run_files / "queries.jsonl")], [str(run_files / "corpus.jsonl")]
    )
    assert [(r.query, list(r.texts)) for r in given] == [("two", ["T x", "long text"]), ("one", ["y"])]
    text = "".join(trec_lines(reply) for reply in answer(ByLength(), given))
    assert text.splitlines()[0] == "q2 Q0 d3 1 9.0 embedkit"
    (run_files / "new.trec").write_text(text, encoding="utf-8")
    assert read_run(run_files / "new.trec") == {"q2": {"d3": 9.0, "d1": 3.0}, "q1": {"d2": 1.0}}


@pytest.mark.parametrize("name", ["queries", "corpus"])
def test_an_id_of_two_texts_is_refused(run_files: Path, name: str) -> None:
    path = run_files / f"{name}.jsonl"
    line = '{"_id": "q1", "text": "other"}\n' if name == "queries" else '{"_id": "d1", "text": "other"}\n'
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")
    with pytest.raises(RecordError, match=rf"{name}\.jsonl:4: the (query|document) id '.1' occurs twice"):
        requests_of_run(
            run_files / "run.trec", [str(run_files / "queries.jsonl")], [str(run_files / "corpus.jsonl")]
        )


def test_run_with_a_depth_still_falls_from_score_to_score(run_files: Path) -> None:
    files = [str(run_files / "queries.jsonl")], [str(run_files / "corpus.jsonl")]
    given = requests_of_run(run_files / "run.trec", *files)
    text = "".join(trec_lines(reply) for reply in answer(ByLength(), given, candidates=1))
    assert text.splitlines()[:2] == ["q2 Q0 d1 1 3.0 embedkit", "q2 Q0 d3 2 2.0 embedkit"]


def test_ids_missing_from_the_collection_are_all_counted_and_some_named(run_files: Path) -> None:
    (run_files / "corpus.jsonl").write_text('{"_id": "d2", "text": "y"}\n', encoding="utf-8")
    with pytest.raises(
        EvaluationError, match=r"run.trec: 2 of its 3 documents have no text: 'd1', 'd3'. Give --documents"
    ):
        requests_of_run(
            run_files / "run.trec", [str(run_files / "queries.jsonl")], [str(run_files / "corpus.jsonl")]
        )
    (run_files / "queries.jsonl").write_text('{"_id": "q1", "text": "one"}\n', encoding="utf-8")
    with pytest.raises(
        EvaluationError, match=r"run.trec: 1 of its 2 queries have no text: 'q2'. Give --queries"
    ):
        requests_of_run(
            run_files / "run.trec", [str(run_files / "queries.jsonl")], [str(run_files / "corpus.jsonl")]
        )


def test_the_first_stage_has_a_say_where_all_candidates_have_its_score() -> None:
    """Scaled: first 1, .8, 0; lengths 0, .5, 1. With .5: .5, .65, .5; ties keep their order."""
    given = [{"text": "a", "score": 0.9}, {"text": "bb", "score": 0.8}, {"text": "ccc", "score": 0.4}]
    (reply,) = answer(ByLength(), requests({"query": "q", "candidates": given}), weight=0.5)
    rows = reply.row()["candidates"]
    assert [row["text"] for row in rows] == ["bb", "a", "ccc"]
    assert [row["final_score"] for row in rows] == pytest.approx([0.65, 0.5, 0.5])
    assert [row["rerank_score"] for row in rows] == [2.0, 1.0, 3.0]
    del given[1]["score"]
    (alone,) = answer(ByLength(), requests({"query": "q", "candidates": given}), weight=0.5)
    assert not alone.blended
    assert [row["text"] for row in alone.row()["candidates"]] == ["ccc", "bb", "a"]
    assert "final_score" not in alone.row()["candidates"][0]
