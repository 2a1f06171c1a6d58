"""`embedkit train reranker` from the shell's side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.errors import CheckpointError, OutputError, RecipeError
from embedkit.reranking.cross_encoder import CrossEncoder

runner = CliRunner()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"question": f"the cat {i}", "text": t, "label": int(t == "a cat")}
        for i in range(8)
        for t in ("a cat", "a dog")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def arguments(data: Path, model: Path, output: Path) -> list[str]:
    base = ["train", "reranker", str(data), "--model", str(model), "--output", str(output), "--device", "cpu"]
    return [
        *base,
        "--column",
        "first=question",
        "--column",
        "second=text",
        "--steps",
        "2",
        "--set",
        "held_out=0.3",
    ]


def test_a_run_ends_with_a_model_that_scores(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, [*arguments(data, tiny_model, tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.exception
    assert "6 queries with 12 texts, loss softmax; 2 queries held out" in result.stderr
    assert "has no classification head; it starts fresh" in result.stderr
    assert json.loads(result.stdout)["steps"] == 2
    assert CrossEncoder.load(tmp_path / "out", device="cpu").score("the cat", ["a cat"]).shape == (1,)
    again = runner.invoke(app, arguments(data, tiny_model, tmp_path / "out"))
    assert isinstance(again.exception, OutputError)
    further = runner.invoke(app, arguments(data, tmp_path / "out", tmp_path / "further"))
    assert further.exit_code == 0, further.exception
    assert "starts fresh" not in further.stderr


def test_texts_in_a_script_that_the_vocabulary_lacks_are_warned_of(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    rows = data.read_text(encoding="utf-8")
    data.write_text(rows.replace("a cat", "日本 の 首都").replace("a dog", "東京"), encoding="utf-8")
    result = runner.invoke(app, arguments(data, tiny_model, tmp_path / "out"))
    assert result.exit_code == 0, result.exception
    assert "of the tokens of the texts are unknown to the vocabulary" in result.stderr


def test_tables_without_a_header_are_read_with_any_separator(tiny_model: Path, tmp_path: Path) -> None:
    """Two columns are a pair; a third of numbers says how relevant the text is."""
    table = tmp_path / "table.csv"
    rows = [f"the cat {i}^{text}^{int(text == 'a cat')}\n" for i in range(8) for text in ("a cat", "a dog")]
    table.write_text("".join(rows), encoding="utf-8")
    command = ["train", "reranker", str(table), "--model", str(tiny_model), "-o", str(tmp_path / "out")]
    command += ["--device", "cpu", "--steps", "2", "--set", "held_out=0.3", "--dry-run"]
    result = runner.invoke(app, [*command, "--no-header", "--delimiter", "^"])
    assert result.exit_code == 0, result.exception
    assert "6 queries with 12 texts, loss softmax; 2 queries held out" in result.stderr
    wrong = runner.invoke(app, [*command, "--delimiter", "ab"])
    assert wrong.exit_code == 2
    assert "delimiter is 'ab'; it must be one sign, or tab" in wrong.output


def test_wrong_settings_and_models_are_told(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    wrong = runner.invoke(app, [*arguments(data, tiny_model, tmp_path / "o"), "--loss", "softmx"])
    assert isinstance(wrong.exception, RecipeError)
    assert "loss is 'softmx'; it must be one of" in str(wrong.exception)
    missing = runner.invoke(app, arguments(data, tmp_path / "nowhere", tmp_path / "o"))
    assert isinstance(missing.exception, CheckpointError)
    assert "there is no such model folder" in str(missing.exception)
    assert not (tmp_path / "o").exists()


def test_dry_run_writes_nothing(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, [*arguments(data, tiny_model, tmp_path / "o"), "--dry-run", "--json"])
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)["steps"] == 2
    assert not (tmp_path / "o").exists()
