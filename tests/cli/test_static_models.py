"""Texts without tokens under a static model: every command goes on, and says how many there were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.tiny import write_static_model

BLANK = "\u200b"  # a sign that the tokenizer drops
TEXTS = ["the dog runs", BLANK, "a cat sleeps", "", "the dog runs and sleeps"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_static_model(tmp_path_factory.mktemp("static") / "model")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    rows = [{"_id": f"d{number}", "text": text} for number, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(*words: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr or str(result.exception)


def test_encode_writes_zeros_and_counts_them_or_stops_where_it_is_told_to(
    model: Path, corpus: Path, tmp_path: Path
) -> None:
    out, notes = run("encode", corpus, "-m", model, "-o", tmp_path / "v.npy", "--json")
    assert json.loads(out)["empty"] == 2
    assert np.load(tmp_path / "v.npy").any(axis=1).tolist() == [True, False, True, False, True]
    _, notes = run("encode", corpus, "-m", model, "-o", tmp_path / "w.npy")
    assert f"warning: 2 texts empty or without tokens for this model; the first is {corpus}:2" in notes
    alone = tmp_path / "alone.jsonl"
    alone.write_text(
        json.dumps({"text": "dog"}) + "\n" + json.dumps({"text": BLANK}) + "\n", encoding="utf-8"
    )
    _, error = run("encode", alone, "-m", model, "--on-empty", "error", code=1)
    assert f"{alone}:2: the text '\\u200b' has no tokens for this model. Remove the row" in error


def test_index_build_counts_them_and_a_search_for_one_finds_nothing(
    model: Path, corpus: Path, tmp_path: Path
) -> None:
    index = tmp_path / "i"
    out, _ = run("index", "build", corpus, "-i", index, "-m", model, "--json")
    report = json.loads(out)
    assert (report["added"], report["empty"], report["vectors"]) == (5, 2, 3)
    out, _ = run("search", index, "dog", "--json")
    assert json.loads(out.splitlines()[0])["id"] == "d0"
    for query, why in (("", "is empty"), (BLANK, "has no tokens for this model")):
        out, notes = run("search", index, query, "--json", "--mode", "dense")
        assert out == ""
        assert f"no hits: the query {why}" in notes
        assert run("search", index, query, "--json")[0] == ""
    queries = tmp_path / "q.jsonl"
    rows = [{"_id": str(number), "text": text} for number, text in enumerate([BLANK, "cat"])]
    queries.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out, _ = run("search", index, "--queries", queries, "-k", 1)
    assert [(row["query_id"], row["id"]) for row in map(json.loads, out.splitlines())] == [("1", "d2")]


def test_pairs_leave_them_out(model: Path, corpus: Path) -> None:
    out, notes = run("pairs", corpus, "-m", model, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 3
    assert {pair[side]["id"] for pair in found for side in ("first", "second")} == {"d0", "d2", "d4"}
    assert "left out: 2 texts without tokens that the model knows" in notes


def test_evaluation_goes_on(model: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    lines = ["sentence1\tsentence2\tscore", "dog\tthe dog\t5", f"cat\t{BLANK}\t0", "a cat\tthe dog\t2"]
    pairs.write_text("\n".join(lines) + "\n", encoding="utf-8")
    run("evaluate", "similarity", pairs, "-m", model)
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    documents = {"a": "the dog runs", "b": BLANK}
    queries = {"1": "dog", "2": BLANK}
    for name, rows in (("corpus", documents), ("queries", queries)):
        text = "".join(json.dumps({"_id": key, "text": value}) + "\n" for key, value in rows.items())
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    judged = "query-id\tcorpus-id\tscore\n1\ta\t1\n2\tb\t1\n"
    (folder / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    _, notes = run("evaluate", "retrieval", folder, "-m", model, "--cache-dir", tmp_path / "cache")
    assert "1 of 2 judged queries have no hits in the run and count as 0: '2'" in notes
