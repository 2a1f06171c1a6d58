"""`embedkit adapt` from the shell's side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.encoding.encoder import Encoder
from embedkit.errors import RecipeError, TrainingError
from tests.adapting import RECIPE, write_documents
from tests.conftest import REPOSITORY
from tests.tiny import write_static_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder

runner = CliRunner()


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    return write_documents(tmp_path / "documents.jsonl")


def without_steps(documents: Path, model: Path, output: Path) -> list[str]:
    return ["adapt", str(documents), "--output", str(output), "--model", str(model), "--device", "cpu"]


def words(documents: Path, model: Path, output: Path, *more: str) -> list[str]:
    settings = [word for setting in RECIPE for word in ("--set", setting)]
    return [*without_steps(documents, model, output), *settings, *more]


def test_the_report_is_json_and_what_was_left_out_is_said(
    documents: Path, tiny_model: Path, tmp_path: Path
) -> None:
    reranker = write_tiny_cross_encoder(tmp_path / "reranker")
    with documents.open("a", encoding="utf-8") as stream:
        stream.write(documents.read_text(encoding="utf-8").splitlines()[0].replace('"d0"', '"again"') + "\n")
        stream.write(json.dumps({"id": "jp", "text": "東京 は 日本 の 首都 です"}) + "\n")
    pairs = tmp_path / "sts.tsv"
    pairs.write_text(
        "sentence1\tsentence2\tscore\na dog\ta cat\t1\na girl\ta boy\t2\na song\ta ball\t0\n",
        encoding="utf-8",
    )
    command = words(documents, tiny_model, tmp_path / "mine", "--reranker", str(reranker))
    result = runner.invoke(app, [*command, "--evaluate", str(pairs), "--json"])
    assert result.exit_code == 0, result.exception
    report = json.loads(result.stdout)
    assert report["documents"]["documents"] == 62
    assert report["negatives"]["rows"] > 0
    assert report["sets"][0]["name"].endswith("sts spearman")
    assert isinstance(report["keep"], bool)
    assert "note: 1 document with the text of one before: left out" in result.stderr
    assert (
        "warning: 1 document of which more than a fifth of the tokens are unknown to the model"
        in result.stderr
    )
    again = runner.invoke(app, [*command, "--evaluate", str(pairs), "--json", "--resume"])
    assert again.exit_code == 0, again.exception
    assert json.loads(again.stdout) == report


@pytest.mark.parametrize("static", [False, True])
def test_without_steps_only_a_map_is_found(
    documents: Path, tiny_model: Path, tmp_path: Path, static: bool
) -> None:
    model = write_static_model(tmp_path / "static") if static else tiny_model
    command = [*without_steps(documents, model, tmp_path / "mine"), "--ranking-steps", "3"]
    tried = runner.invoke(app, [*command, "--dry-run", "--json", "--max-queries", "5"])
    assert set(json.loads(tried.stdout)["seconds"]) == {"queries", "whiten", "rank", "measure"}
    result = runner.invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)["negatives"] is None
    mine = str(tmp_path / "mine")
    assert (Encoder.load(mine).encode("the girl") != Encoder.load(str(model)).encode("the girl")).any()
    assert json.loads(runner.invoke(app, [*command, "--json", "--resume"]).stdout)["keep"] is not None


@pytest.mark.parametrize(
    "option", ["--no-reranker", "--share=0.7", "--reranker=some", "--set lr=1e-5", "--set num_negatives = 2"]
)
def test_what_only_training_reads_needs_steps(
    documents: Path, tiny_model: Path, tmp_path: Path, option: str
) -> None:
    command = without_steps(documents, tiny_model, tmp_path / "mine")
    result = runner.invoke(app, [*command, *option.split(" ", 1)])
    assert result.exit_code == 2
    assert f"{option.split('=')[0].strip()}: this is about training the encoder" in result.output
    assert not (tmp_path / "mine").exists()


def test_a_static_model_is_not_trained(documents: Path, tmp_path: Path) -> None:
    model = write_static_model(tmp_path / "static")
    result = runner.invoke(app, words(documents, model, tmp_path / "mine"))
    assert isinstance(result.exception, TrainingError)
    assert "Leave its training out (--steps 0)" in str(result.exception)
    assert not (tmp_path / "mine").exists()


def test_a_dry_run_says_how_long_each_stage_takes(documents: Path, tiny_model: Path, tmp_path: Path) -> None:
    command = words(documents, tiny_model, tmp_path / "mine", "--no-reranker", "--dry-run", "--json")
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    assert set(found["seconds"]) == {"queries", "index", "mine", "train", "whiten", "rank", "measure"}
    assert not (tmp_path / "mine").exists()


def test_what_cannot_be_is_refused(documents: Path, tiny_model: Path, tmp_path: Path) -> None:
    few = write_documents(tmp_path / "few.jsonl", 4)
    result = runner.invoke(app, words(few, tiny_model, tmp_path / "few", "--no-reranker"))
    assert isinstance(result.exception, TrainingError)
    assert "too little to adapt to" in str(result.exception)
    idle = ("--steps=0", "--set=steps=0")
    for wrong in (
        ("--share=0",),
        ("--set=shares=1",),
        ("--whitening=1.5",),
        ("--whitening=0", "--set=ranking_steps=0", *idle),
        ("--set=ranking_steps=-1",),
        ("--mlm-steps=9", *idle),
    ):
        result = runner.invoke(app, words(documents, tiny_model, tmp_path / "wrong", "--no-reranker", *wrong))
        assert isinstance(result.exception, RecipeError)
    assert not (tmp_path / "wrong").exists()


def test_an_interrupted_run_says_how_to_go_on(documents: Path, tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine"
    command = words(documents, tiny_model, output, "--no-reranker", "--set", "steps=100000", "--json")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", *command], stderr=subprocess.PIPE, text=True, env=environment
    )
    log = output / "training" / "encoder" / "training" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not log.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 130, said
    assert "interrupted; resume with:" in said
    assert said.rstrip().endswith("--resume")
    assert (output / "training" / "rows.jsonl").is_file()
    assert not (output / "config.json").exists()
