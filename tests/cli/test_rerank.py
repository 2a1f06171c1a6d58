"""`embedkit rerank` from the shell's side: what comes out, what is said, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.data.trec import read_run
from embedkit.errors import CheckpointError, EvaluationError, RecordError
from embedkit.reranking.cross_encoder import CrossEncoder
from tests.tiny_cross_encoder import LONG, QUERY, TEXTS, write_tiny_cross_encoder

runner = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cross_encoder(tmp_path_factory.mktemp("rerank") / "model")


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_lines_come_out_reordered_by_the_models_scores(folder: Path) -> None:
    given = lines({"query": QUERY, "candidates": list(TEXTS)}, {"query": "none", "candidates": []})
    result = runner.invoke(app, ["rerank", "-m", str(folder), "--device", "cpu"], input=given)
    assert result.exit_code == 0, result.output
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    scores = CrossEncoder.load(folder, device="cpu").score(QUERY, TEXTS)
    wanted = sorted(zip(scores.tolist(), TEXTS, strict=True), reverse=True)
    assert [c["text"] for c in first["candidates"]] == [text for _, text in wanted]
    assert [c["rerank_score"] for c in first["candidates"]] == pytest.approx([s for s, _ in wanted], abs=2e-6)
    assert second == {"query": "none", "candidates": []}
    assert "2 queries, 5 candidates scored" in result.stderr
    assert "note: 1 queries had no candidates" in result.stderr


def test_file_candidates_top_k_and_truncation_are_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        lines({"query": QUERY, "candidates": [LONG * 3, "cat", "dog"]}), encoding="utf-8"
    )
    arguments = ["rerank", str(tmp_path / "in.jsonl"), "-m", str(folder), "--candidates", "2", "-k", "1"]
    result = runner.invoke(app, [*arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["candidates"]) == 1
    assert "1 candidates beyond --candidates or --budget follow in their old order" in result.stderr
    assert "warning: 1 of 2 pairs were cut to the 32 tokens that the model reads" in result.stderr


def test_run_comes_out_as_a_run(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.trec").write_text("q1 Q0 d1 1 0.9 x\nq1 Q0 d2 2 0.8 x\n", encoding="utf-8")
    (tmp_path / "q.jsonl").write_text(lines({"_id": "q1", "text": QUERY}), encoding="utf-8")
    (tmp_path / "d.jsonl").write_text(
        lines({"_id": "d1", "text": TEXTS[0]}, {"_id": "d2", "text": TEXTS[1]}), encoding="utf-8"
    )
    arguments = ["rerank", "-m", str(folder), "--run", str(tmp_path / "run.trec"), "--device", "cpu"]
    arguments += ["--queries", str(tmp_path / "q.jsonl"), "--documents", str(tmp_path / "d.jsonl")]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (tmp_path / "out.trec").write_text(result.stdout, encoding="utf-8")
    scores = CrossEncoder.load(folder, device="cpu").score(QUERY, TEXTS[:2])
    found = read_run(tmp_path / "out.trec")["q1"]
    assert found == pytest.approx({"d1": scores[0], "d2": scores[1]}, abs=2e-6)
    row = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert row["query_id"] == "q1"
    assert {c["id"]: c["score"] for c in row["candidates"]} == {"d1": 0.9, "d2": 0.8}
    (tmp_path / "d.jsonl").write_text(lines({"_id": "d1", "text": "a"}), encoding="utf-8")
    missing = runner.invoke(app, arguments)
    assert isinstance(missing.exception, EvaluationError)
    assert "1 of its 2 documents have no text: 'd2'" in str(missing.exception)
    assert missing.stdout == ""


def test_budget_is_read_and_something_is_always_scored(folder: Path) -> None:
    given = lines({"query": QUERY, "candidates": ["cat"] * 20})
    arguments = ["rerank", "-m", str(folder), "--device", "cpu", "--budget"]
    result = runner.invoke(app, [*arguments, "0.001ms"], input=given)
    assert result.exit_code == 0, result.output
    scored = [c["rerank_score"] is not None for c in json.loads(result.stdout)["candidates"]]
    assert scored == [True] * 4 + [False] * 16
    wrong = runner.invoke(app, [*arguments, "soon"], input=given)
    assert wrong.exit_code == 2
    assert "'soon' is not a time budget" in wrong.output


def test_maxsim_reranks_with_an_encoder(tiny_model: Path) -> None:
    given = lines({"query": QUERY, "candidates": ["horse", QUERY]})
    arguments = ["rerank", "-m", str(tiny_model), "--device", "cpu"]
    result = runner.invoke(app, [*arguments, "--maxsim"], input=given)
    best = json.loads(result.stdout)["candidates"][0]
    assert best["text"] == QUERY
    assert best["rerank_score"] == pytest.approx(1.0, abs=1e-5)
    refused = runner.invoke(app, arguments, input=given)
    assert isinstance(refused.exception, CheckpointError)
    assert "this is an encoder (BertModel)" in str(refused.exception)


def test_texts_that_maxsim_cuts_are_told(tiny_model: Path) -> None:
    given = lines(
        {"query": QUERY, "candidates": [LONG * 3, "cat"]}, {"query": LONG * 3, "candidates": ["cat"]}
    )
    arguments = ["rerank", "-m", str(tiny_model), "--device", "cpu", "--maxsim", "--max-seq-length", "16"]
    result = runner.invoke(app, arguments, input=given)
    assert result.exit_code == 0, result.output
    told = "warning: 2 of 3 pairs were cut to the 16 tokens that the model reads of a text, in 1 of them the query"
    assert told in result.stderr


def test_calibration_is_fitted_written_and_used(tmp_path: Path) -> None:
    folder = write_tiny_cross_encoder(tmp_path / "m")
    rows = [
        f"{QUERY}\t{text or 'a'}\t{i % 2}"
        for i, text in enumerate(["cat", "dog", "red cat", "horse", *TEXTS])
    ]
    scores = CrossEncoder.load(folder, device="cpu").score(QUERY, [row.split("\t")[1] for row in rows])
    if scores[1::2].mean() < scores[::2].mean():  # random weights: call relevant what scores higher
        rows = [row[:-1] + str(1 - int(row[-1])) for row in rows]
    (tmp_path / "pairs.tsv").write_text("query\ttext\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    arguments = ["rerank", "-m", str(folder), "--device", "cpu"]
    fitted = runner.invoke(app, [*arguments, "--calibrate", str(tmp_path / "pairs.tsv"), "--json"])
    assert fitted.exit_code == 0, fitted.exception
    content = json.loads(fitted.stdout)
    assert content["num_pairs"] == 9
    given = lines({"query": QUERY, "candidates": ["cat", "dog"]})
    result = runner.invoke(app, [*arguments, "--probabilities"], input=given)
    assert all(0 < c["rerank_score"] < 1 for c in json.loads(result.stdout)["candidates"])
    (tmp_path / "pairs.tsv").write_text("query\ttext\tlabel\nq\tt\tmaybe\n", encoding="utf-8")
    wrong = runner.invoke(app, [*arguments, "--calibrate", str(tmp_path / "pairs.tsv")])
    assert isinstance(wrong.exception, RecordError)
    assert "row 1: label is 'maybe'; it must be 0 or 1" in str(wrong.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "x", "--run", "r"], "--run needs --queries and --documents"),
        (["-m", "x", "--queries", "r"], "--queries and --documents go with --run"),
        (["-m", "x", "--maxsim", "--layers", "2"], "--maxsim goes without"),
        (["-m", "x", "--maxsim", "--truncation", "second"], "--layers, --label and --truncation"),
        (["-m", "x", "--maxsim", "--calibrate", "x"], "--calibrate reads FILE alone"),
        (["i.jsonl", "-m", "x", "--calibrate", "x"], "it goes without INPUT, --run and --maxsim"),
        (
            ["i.jsonl", "--run", "r", "--queries", "q", "--documents", "d"],
            "INPUT (i.jsonl) and --run exclude",
        ),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["rerank", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert message in result.output


def test_missing_input_is_an_error(folder: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, ["rerank", str(tmp_path / "no.jsonl"), "-m", str(folder), "--device", "cpu"])
    assert isinstance(result.exception, RecordError)
    assert "no.jsonl: cannot be read (No such file or directory); check the path" in str(result.exception)


def test_a_missing_first_score_is_told_where_it_was_to_count(folder: Path) -> None:
    plain = lines({"query": QUERY, "candidates": list(TEXTS)})
    scored = lines(
        {"query": QUERY, "candidates": [{"text": "cat", "score": 0.5}, {"text": "dog", "score": 0.4}]}
    )
    partly = lines({"query": QUERY, "candidates": [{"text": "cat", "score": 0.5}, {"text": "dog"}]})
    note = "note: in 1 queries a candidate has no `score`, so the reranker alone decided their order"
    for given, told in ((plain, True), (scored, False), (partly, True)):
        arguments = ["rerank", "-m", str(folder), "--rerank-weight", "0.5", "--device", "cpu"]
        result = runner.invoke(app, arguments, input=given)
        assert result.exit_code == 0, result.output
        assert (note in result.stderr) is told
        assert ("final_score" in result.stdout) is not told
