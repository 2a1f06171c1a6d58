"""`embedkit explain`: a text or a document of an index, as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import explain as command
from cli.explain_tokens import show
from cli.main import app
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.errors import RecordError
from embedkit.explaining.explain import explain as compute
from embedkit.explaining.tokens import explain_tokens
from tests.tiny_multi_vector import write_tiny_multi_vector


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBEDKIT_MODEL", raising=False)


def explain(*arguments: object) -> Any:  # Any: click's result, whose module is not to be imported
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_a_text_is_explained_with_a_page(tiny_model: Path, tmp_path: Path) -> None:
    html = tmp_path / "why.html"
    result = explain("a dog", "the dog runs", "-m", tiny_model, "--device", "cpu", "--html", html)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [part["text"] for part in found["document"]["leave_one_out"]] == ["the", "dog", "runs"]
    assert f"Score {found['score']:.4f}" in html.read_text(encoding="utf-8")


def test_a_document_of_an_index_is_explained_by_the_indexs_model(tiny_model: Path, tmp_path: Path) -> None:
    corpus, index = tmp_path / "corpus.jsonl", tmp_path / "my.index"
    corpus.write_text('{"_id": "d1", "title": "Dogs", "text": "a dog runs"}\n{"_id": "d2", "text": "red"}\n')
    built = CliRunner().invoke(
        app, ["index", "build", str(corpus), "-i", str(index), "-m", str(tiny_model), "--device", "cpu"]
    )
    assert built.exit_code == 0, built.output
    found = json.loads(explain("dog", "d1", "--index", index, "--device", "cpu").stdout)
    assert found["document"]["text"] == "Dogs a dog runs"
    hits = CliRunner().invoke(
        app, ["search", str(index), "dog", "--mode", "dense", "--json", "--device", "cpu"]
    )
    scores = {row["id"]: row["score"] for row in map(json.loads, hits.stdout.splitlines())}
    assert found["score"] == pytest.approx(scores["d1"], abs=1e-5)
    unknown = explain("dog", "d9", "--index", index)
    assert isinstance(unknown.exception, RecordError)
    assert "no document 'd9'. Look for it with: embedkit search" in str(unknown.exception)


def test_the_terminal_shows_words_matches_and_layers(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command._print(compute(Encoder.load(tiny_model, device="cpu"), "a dog", "the dog runs"))
    shown = capsys.readouterr().out
    assert "the dog runs" in shown
    assert "nearest in the document" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert [line[0] for line in lines if line[:1] in (["1"], ["2"])] == ["1", "2"]


def test_with_a_multi_vector_model_each_token_of_the_query_has_its_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_tiny_multi_vector(tmp_path / "colbert")
    result = explain("a dog", "the dog runs", "-m", model)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert sum(match["cosine"] for match in found["matches"]) == pytest.approx(found["score"])
    for option in (("--html", tmp_path / "why.html"), ("--attention",)):
        refused = explain("a dog", "the dog runs", "-m", model, *option)
        assert refused.exit_code == 2
        assert f"{option[0]} does not go with a multi-vector model: its score is a sum" in refused.output
    capsys.readouterr()
    show(explain_tokens(MultiVectorEncoder.load(model), "a dog", "many words " * 30))
    shown = capsys.readouterr().out
    assert f"the sum over the query's {len(found['query']['tokens'])} tokens" in shown
    assert "that the text does not hold" in shown
    assert "the model reads the beginning of the document only" in shown


def test_a_file_is_explained_by_what_it_holds(tiny_model: Path, tmp_path: Path) -> None:
    """Its path was taken for the text."""
    note = tmp_path / "note.md"
    note.write_text("# Dogs\n\nthe dog runs\n", encoding="utf-8")
    found = json.loads(explain("a dog", note, "-m", tiny_model, "--device", "cpu").stdout)
    same = json.loads(
        explain("a dog", "Dogs # Dogs\n\nthe dog runs", "-m", tiny_model, "--device", "cpu").stdout
    )
    assert found["score"] == pytest.approx(same["score"])
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n{"text": "b"}\n', encoding="utf-8")
    several = explain("a dog", rows, "-m", tiny_model)
    assert "rows.jsonl: this file holds several documents; explain takes one." in str(several.exception)
