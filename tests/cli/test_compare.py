"""`embedkit compare`: runs, saved results and systems against one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.errors import EvaluationError
from tests.judged import DOCUMENTS, write_judged_set, write_lines, write_self_asking_set

# A finds the right document of q1 alone, B those of q2 and q3 as well.
RUN_A = "q1 Q0 d1 1 3 a\nq2 Q0 d5 1 3 a\nq3 Q0 d5 1 2 a\n"
RUN_B = "q1 Q0 d1 1 3 b\nq2 Q0 d2 1 3 b\nq2 Q0 d4 2 2 b\nq3 Q0 d4 1 1 b\n"


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.trec").write_text(RUN_A, encoding="utf-8")
    (tmp_path / "b.trec").write_text(RUN_B, encoding="utf-8")
    return write_judged_set(tmp_path / "mini")


def compare(*arguments: object) -> Any:  # Any: click's result, whose module is not to be imported
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_two_runs_with_top_hits_and_a_page(judged: Path) -> None:
    folder = judged.parent
    html = folder / "page.html"
    result = compare(folder / "a.trec", folder / "b.trec", "--set", judged, "--html", html)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["name_a"], found["name_b"]) == ("a", "b")
    assert found["mean_a"] == pytest.approx(1 / 3)
    assert found["mean_b"] == pytest.approx(1.0)
    assert (found["wins"], found["ties"], found["losses"]) == (2, 1, 0)
    # Two queries differ by 1 each: of the 4 sign patterns ++ and -- are as far from 0.
    assert found["test"] == {"p_value": 0.5, "exact": True, "rounds": 4}
    gained = {change["query_id"]: change for change in found["changes"]}["q3"]
    assert gained["text"] == "piano"
    assert [hit["doc_id"] for hit in gained["hits_b"]] == ["d4"]
    assert gained["hits_b"][0]["text"] == DOCUMENTS["d4"]
    page = html.read_text(encoding="utf-8")
    assert DOCUMENTS["d4"] in page
    assert "<script" not in page


def test_judgements_alone_do_as_well(judged: Path) -> None:
    folder = judged.parent
    qrels = judged / "qrels" / "test.tsv"
    found = json.loads(
        compare(folder / "a.trec", folder / "b.trec", "--qrels", qrels, "--metric", "p@1").stdout
    )
    assert found["difference"] == pytest.approx(2 / 3)


def test_systems_are_searched_and_saved_results_compare(judged: Path, tiny_model: Path) -> None:
    folder = judged.parent
    by_words = compare("bm25", f"{tiny_model}:hybrid", "--set", judged, "--device", "cpu")
    assert by_words.exit_code == 0, by_words.output
    found = json.loads(by_words.stdout)
    assert (found["name_a"], found["name_b"]) == ("BM25", f"{tiny_model.parent.name}/model hybrid")
    assert found["mean_a"] == pytest.approx(1.0)
    saved = folder / "saved"
    arguments = [
        "evaluate",
        "retrieval",
        str(judged),
        "-m",
        str(tiny_model),
        "--mode",
        "hybrid",
        "--device",
        "cpu",
    ]
    assert CliRunner().invoke(app, [*arguments, "--save", str(saved)]).exit_code == 0
    files = [saved / "mini.BM25.json", *[path for path in saved.glob("*.json") if "BM25" not in path.name]]
    again = json.loads(compare(*files).stdout)
    for figure in ("mean_a", "mean_b", "difference", "test", "interval"):
        assert again[figure] == found[figure]


def test_both_sides_leave_out_a_query_that_is_a_document(judged: Path, tmp_path: Path) -> None:
    folder = write_self_asking_set(tmp_path / "argu")
    run = tmp_path / "own.trec"
    run.write_text("d1 Q0 d1 1 9 x\nd1 Q0 d3 2 8 x\nd2 Q0 d2 1 9 x\nd2 Q0 d4 2 8 x\n", encoding="utf-8")
    result = compare(run, "bm25", "--set", folder, "--metric", "mrr@10")
    found = json.loads(result.stdout)
    assert found["mean_a"] == 1.0
    assert not any(
        hit["doc_id"] == change["query_id"] for change in found["changes"] for hit in change["hits_b"]
    )
    assert "hits with the id of their query do not count: the queries are documents" in result.stderr
    kept = compare(run, "bm25", "--set", folder, "--metric", "mrr@10", "--keep-identical-ids")
    assert json.loads(kept.stdout)["mean_a"] == 0.5
    assert "do not count" not in kept.stderr
    alone = compare(run, run, "--qrels", folder / "qrels" / "test.tsv")
    assert "note: own.trec: 2 of 2 queries have the document of their own id as first hit" in alone.stderr


def test_results_that_count_identical_ids_do_not_compare_with_those_that_do_not(
    judged: Path, tmp_path: Path
) -> None:
    folder = write_self_asking_set(tmp_path / "argu")
    for name, option in (("a", "--ignore-identical-ids"), ("b", "--keep-identical-ids")):
        arguments = ["evaluate", "retrieval", folder, "--mode", "text", "--save", tmp_path / name, option]
        assert CliRunner().invoke(app, list(map(str, arguments))).exit_code == 0
    refused = compare(tmp_path / "a" / "argu.BM25.json", tmp_path / "b" / "argu.BM25.json")
    assert isinstance(refused.exception, EvaluationError)
    assert "b/argu.BM25.json counts hits with the id of their query, and the other result does not" in str(
        refused.exception
    )


def test_results_on_different_data_do_not_compare(judged: Path) -> None:
    folder = judged.parent
    for number in (1, 2):
        write_lines(judged / "corpus.jsonl", DOCUMENTS | {"d5": f"water {number}"})
        arguments = ["evaluate", "retrieval", str(judged), "--mode", "text"]
        arguments += ["--save", str(folder / f"s{number}")]
        assert CliRunner().invoke(app, arguments).exit_code == 0
    files = [folder / f"s{number}" / "mini.BM25.json" for number in (1, 2)]
    refused = compare(*files)
    assert isinstance(refused.exception, EvaluationError)
    assert "whose files differ: such values do not compare" in str(refused.exception)
    unknown = compare(files[0], files[0], "--metric", "ndcg@7")
    assert isinstance(unknown.exception, EvaluationError)
    assert "no values of 'ndcg@7' query by query; there are ndcg@10, map@100" in str(unknown.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.json", "b.json", "--qrels", "x"), "saved results are judged already: they go without --qrels"),
        (("a.json", "b.json", "--keep-identical-ids"), "saved results are judged already"),
        (("a.json", "b.trec"), "a.json is a saved result, and b.trec is none"),
        (("bm25", "b.json", "--set", "mini"), "b.json is a saved result, and bm25 is none"),
        (("a.trec", "b.trec"), "runs need judgements: name them with --qrels"),
        (("bm25", "b.trec", "--qrels", "mini/qrels/test.tsv"), "'bm25' is a system, not a run"),
        (("a.trec", "b.trec", "--set", "mini", "--qrels", "x"), "--set and --qrels exclude each other"),
    ],
)
def test_wrong_usage_exits_with_2(
    judged: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(judged.parent)
    result = compare(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
