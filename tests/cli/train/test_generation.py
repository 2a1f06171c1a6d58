"""`embedkit train generation` and `embedkit train lm` from the shell's side, and what they train measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.checkpoint.generation import read_generator_folder
from embedkit.errors import CheckpointError, OutputError, RecordError
from tests.training.corpora import write_texts
from tests.training.generation_runs import DECODER, OF_KIND, Kind, pair_rows, write_rows

runner = CliRunner()


def settings(kind: Kind, *, fresh: bool = True) -> list[str]:
    """Settings of a tiny run; the shape is that of a model that is there, unless it is `fresh`."""
    chosen = [*DECODER, *OF_KIND[kind], "run.precision=fp32"]
    if not fresh:
        chosen = [setting for setting in chosen if not setting.startswith("decoder.")]
    return [word for setting in chosen for word in ("--set", setting)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "pairs.jsonl", pair_rows())


def arguments(data: Path, model: Path, output: Path, *more: str, fresh: bool = True) -> list[str]:
    words = ["train", "generation", str(data), "--model", str(model), "--output", str(output)]
    return [*words, "--steps", "3", "--device", "cpu", *settings("pairs", fresh=fresh), *more]


def test_a_generator_is_trained_measured_and_trained_further(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    result = runner.invoke(app, arguments(data, tiny_model, output, "--json"))
    assert result.exit_code == 0, result.exception
    assert "32 sources with 48 targets (source = 'passage', target = 'query')" in result.stderr
    assert "8 sources held out" in result.stderr
    assert "decoder: fresh weights" in result.stderr
    summary = json.loads(result.stdout)
    assert summary["steps"] == 3
    assert summary["perplexity"] > 1
    again = runner.invoke(app, arguments(data, tiny_model, output))
    assert isinstance(again.exception, OutputError)
    shape = runner.invoke(app, arguments(data, output, tmp_path / "further"))
    assert shape.exit_code == 2
    assert "the model to start from has its decoder already" in " ".join(shape.stderr.split())
    more = arguments(data, output, tmp_path / "further", "--freeze-encoder", fresh=False)
    further = runner.invoke(app, more)
    assert further.exit_code == 0, further.exception
    assert "fresh" not in further.stderr
    measured = [
        "evaluate",
        "generation",
        str(data),
        "--model",
        str(output),
        "--limit",
        "10",
        "--examples",
        "2",
    ]
    result = runner.invoke(
        app, [*measured, "--json", "--method", "greedy", "--save", str(tmp_path / "saved")]
    )
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    assert set(found["values"]) == {"rougeL", "rouge1", "rouge2", "bleu", "chrf", "perplexity", "copied"}
    assert found["counts"]["sources"] == 10
    assert result.stderr.count("written    ") == 2
    saved = str(tmp_path / "saved" / "pairs.jsonl.out.json")
    compared = runner.invoke(app, ["compare", saved, saved, "--metric", "rougeL", "--json"])
    assert compared.exit_code == 0, compared.exception
    assert json.loads(compared.stdout)["difference"] == 0
    followed = runner.invoke(app, ["evaluate", "trend", saved, "--metric", "perplexity", "--json"])
    assert json.loads(followed.stdout)["value"] == found["values"]["perplexity"]


def test_tables_without_a_header_are_read_with_any_separator(tiny_model: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("".join(f"the dog {n}^the cat {n}\n" for n in range(12)), encoding="utf-8")
    words = arguments(table, tiny_model, tmp_path / "out", "--dry-run", "--no-header", "--delimiter", "^")
    result = runner.invoke(app, [*words, "--column", "source=2", "--column", "target=1"])
    assert result.exit_code == 0, result.exception
    assert "10 sources with 10 targets (source = '2', target = '1')" in result.stderr
    unnamed = runner.invoke(app, words)
    assert isinstance(unnamed.exception, RecordError)
    assert "columns here: 1, 2; none of them is known as the source" in str(unnamed.exception)
    role = runner.invoke(app, [*words, "--column", "first=1"])
    assert isinstance(role.exception, RecordError)
    assert "--column 'first=1': wanted source=NAME or target=NAME" in str(role.exception)


def test_a_dry_run_and_a_resumed_run(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    dry = runner.invoke(app, arguments(data, tiny_model, tmp_path / "out", "--dry-run", "--json"))
    assert dry.exit_code == 0, dry.exception
    assert json.loads(dry.stdout)["steps"] == 3
    assert not (tmp_path / "out").exists()
    runner.invoke(app, arguments(data, tiny_model, tmp_path / "out"))
    resumed = runner.invoke(app, arguments(data, tiny_model, tmp_path / "out", "--resume", "--json"))
    assert resumed.exit_code == 0, resumed.exception
    assert "the run ended after step 3; its model is written again" in resumed.stderr


def test_a_language_model_is_trained_measured_and_trained_further(texts: Path, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    made = runner.invoke(app, ["train", "tokenizer", str(texts), "-o", str(tokenizer), "--vocab-size", "80"])
    assert made.exit_code == 0, made.exception
    words = ["train", "lm", str(texts), "--steps", "3", "--device", "cpu", "--json"]
    words += ["--preset", "gpt-tiny", "--cache", str(tmp_path / "cache"), *settings("lm", fresh=False)]
    first = [*words, *settings("lm"), "--tokenizer", str(tokenizer), "--output", str(tmp_path / "lm")]
    result = runner.invoke(app, first)
    assert result.exit_code == 0, result.exception
    assert "tokens per epoch" in result.stderr
    assert json.loads(result.stdout)["perplexity"] > 1
    assert read_generator_folder(tmp_path / "lm").decoder.norm_first
    further = runner.invoke(
        app, [*words, "--model", str(tmp_path / "lm"), "--output", str(tmp_path / "more")]
    )
    assert further.exit_code == 0, further.exception
    measured = runner.invoke(
        app, ["evaluate", "generation", str(texts), "-m", str(tmp_path / "lm"), "--json"]
    )
    assert measured.exit_code == 0, measured.exception
    found = json.loads(measured.stdout)
    assert set(found["values"]) == {"perplexity", "bits per byte"}
    assert found["kind"] == "generation"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts.jsonl", 40)


def test_a_fresh_encoder_needs_a_tokenizer_alone(data: Path, texts: Path, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    runner.invoke(app, ["train", "tokenizer", str(texts), "-o", str(tokenizer), "--vocab-size", "80"])
    words = [
        "train",
        "generation",
        str(data),
        "--tokenizer",
        str(tokenizer),
        "--output",
        str(tmp_path / "out"),
    ]
    words += ["--steps", "2", "--preset", "generation-tiny", "--device", "cpu"]
    result = runner.invoke(app, [*words, "--set", "held_out=0.2", "--set", "run.precision=fp32"])
    assert result.exit_code == 0, result.exception
    assert "encoder and decoder: fresh weights" in result.stderr


def test_wrong_usage_is_told(data: Path, tiny_model: Path, texts: Path, tmp_path: Path) -> None:
    both = runner.invoke(app, arguments(data, tiny_model, tmp_path / "o", "--tokenizer", "x"))
    assert both.exit_code == 2
    assert "name either --model, to start from one, or --tokenizer" in both.stderr.replace("\n", " ")
    column = runner.invoke(app, arguments(data, tiny_model, tmp_path / "o", "--column", "source=text"))
    assert isinstance(column.exception, RecordError)
    assert "missing column 'text' (for source)" in str(column.exception)
    words = [
        "train",
        "lm",
        str(texts),
        "--model",
        str(tiny_model),
        "--output",
        str(tmp_path / "o"),
        "--steps",
        "1",
    ]
    encoder = runner.invoke(app, words)
    assert isinstance(encoder.exception, CheckpointError)
    assert "this is no text generator (BertModel)" in str(encoder.exception)
