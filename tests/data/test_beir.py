from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from embedkit.data.beir import load_retrieval_set
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
