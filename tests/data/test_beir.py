from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from embedkit.data.beir import UnknownIds, find_unknown, load_retrieval_set, name_some
from embedkit.errors import EvaluationError, RecordError


def _write_set(folder: Path, qrels: str, *, queries: Mapping[str, str] | None = None) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels, encoding="utf-8")
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "title": "T", "text": "x"}\n', encoding="utf-8")
    lines = [
        json.dumps({"_id": key, "text": text}) for key, text in (queries or {"q1": "a", "q2": "b"}).items()
    ]
    with gzip.open(folder / "queries.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
    return folder


def test_a_folder_gives_its_judged_queries_and_files(tmp_path: Path) -> None:
    folder = _write_set(tmp_path / "mini", "q2\td1\t1\nq9\td1\t1\n")
    found = load_retrieval_set(folder)
    assert (found.name, found.split) == ("mini", "test")
    assert found.queries == {"q2": "b"}
    assert found.qrels == {"q2": {"d1": 1}, "q9": {"d1": 1}}
    assert found.corpus == folder / "corpus.jsonl"
    assert [path.name for path in found.files] == ["corpus.jsonl", "queries.jsonl.gz", "test.tsv"]


def test_what_is_missing_is_named_with_what_is_there(tmp_path: Path) -> None:
    folder = _write_set(tmp_path / "mini", "q1\td1\t1\n")
    with pytest.raises(RecordError, match=r"qrels/dev.tsv is missing .*; qrels/ holds test.tsv"):
        load_retrieval_set(folder, split="dev")
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(RecordError, match=r"corpus.jsonl is missing .*; mini/ holds qrels, queries.jsonl.gz"):
        load_retrieval_set(folder)
    with pytest.raises(RecordError, match=r"none: there is no such folder"):
        load_retrieval_set(tmp_path / "none")


def test_a_set_whose_judgements_know_no_query_is_an_error(tmp_path: Path) -> None:
    folder = _write_set(tmp_path / "mini", "7\td1\t1\n8\td1\t1\n")
    with pytest.raises(
        EvaluationError,
        match=r"none of its 2 queries \(the first is '7'\) is among the 2 of queries.jsonl.gz",
    ):
        load_retrieval_set(folder)


QRELS = {"q1": {"d1": 1, "d2": 0}, "q2": {"d3": 2, "d4": 1}}


def test_unknown_ids_are_counted_and_named() -> None:
    unknown = find_unknown(QRELS, query_ids=["q1"], doc_ids={"d1": 0, "d4": 1})
    assert unknown == UnknownIds(("q2",), ("d3",))  # d2 is judged 0: nothing is lost with it
    assert unknown.notes() == (
        "1 judged queries are unknown and count as 0: 'q2'",
        "1 judged documents are not in the collection and cannot be found: 'd3'",
    )
    assert find_unknown(QRELS, query_ids=["q1", "q2"], doc_ids=["d1", "d3", "d4"]).notes() == ()


def test_nothing_known_is_an_error_and_no_zero() -> None:
    with pytest.raises(
        EvaluationError, match=r"none of the 2 judged queries is known: 'q1', 'q2'; known are 1"
    ):
        find_unknown(QRELS, query_ids=["x"], doc_ids=["d1"])
    with pytest.raises(
        EvaluationError,
        match=r"none of the 3 judged relevant documents is known: 'd1', 'd3', 'd4'; known are 1 such as 'doc1'",
    ):
        find_unknown(QRELS, query_ids=["q1"], doc_ids=["doc1"])
    with pytest.raises(EvaluationError, match=r"known are 0 such as none"):
        find_unknown(QRELS, query_ids=["q1"], doc_ids=[])


def test_names_are_cut_after_a_few() -> None:
    assert name_some(["a", "b"], most=2) == "'a', 'b'"
    assert name_some(["a", "b", "c", "d"], most=2) == "'a', 'b' and 2 more"
