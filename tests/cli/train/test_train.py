"""`embedkit train tokenizer`, `train mlm`, `train plot` and `fill-mask`, from the shell's side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.errors import OutputError, RecipeError, TrainingError
from tests.conftest import REPOSITORY
from tests.training.corpora import TINY, write_texts

runner = CliRunner()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts and a tokenizer made by the command itself."""
    folder = tmp_path_factory.mktemp("shell")
    write_texts(folder / "texts.jsonl")
    result = runner.invoke(
        app,
        [
            "train",
            "tokenizer",
            str(folder / "texts.jsonl"),
            "-o",
            str(folder / "tokenizer"),
            "--vocab-size",
            "80",
            "--max-length",
            "64",
            "--json",
        ],
    )
    assert result.exit_code == 0, result.exception
    report = json.loads(result.stdout)
    assert (report["vocab_size"], report["texts"], report["held_out_texts"]) == (80, 119, 1)
    assert report["coverage"] == 1.0
    return folder


def arguments(place: Path, output: Path, *more: str) -> list[str]:
    base = [
        "train",
        "mlm",
        str(place / "texts.jsonl"),
        "--tokenizer",
        str(place / "tokenizer"),
        "--output",
        str(output),
    ]
    settings = [part for setting in TINY for part in ("--set", setting)]
    return [*base, "--cache", str(place / "cache"), "--device", "cpu", "--preset", "tiny", *settings, *more]


def test_a_run_ends_with_a_model_that_fills_masks_and_can_be_drawn(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    result = runner.invoke(app, arguments(place, output, "--steps", "8", "--next-sentence", "--json"))
    assert result.exit_code == 0, result.exception
    assert "120 documents" not in result.stderr  # some are held out
    assert "documents held out" in result.stderr
    assert "step 8 of 8: loss" in result.stderr
    summary = json.loads(result.stdout)
    assert summary["steps"] == 8
    assert {"loss", "accuracy", "pair_accuracy"} <= set(summary)
    filled = runner.invoke(
        app, ["fill-mask", "The [MASK] sees the dog.", "--model", str(output), "--top-k", "2", "--json"]
    )
    assert filled.exit_code == 0, filled.exception
    assert len(json.loads(filled.stdout)["tokens"]) == 2
    drawn = runner.invoke(app, ["train", "plot", str(output)])
    assert drawn.exit_code == 0, drawn.exception
    assert "step 8" in drawn.stdout
    further = arguments(place, tmp_path / "further", "--steps", "1")
    for name in ("--tokenizer", "--preset"):
        at = further.index(name)
        del further[at : at + 2]
    places = [i for i, argument in enumerate(further) if argument.startswith("model.")]
    for i in reversed(places):
        del further[i - 1 : i + 1]
    went = runner.invoke(app, [*further, "--model", str(output), "--freeze-layers", "1"])
    assert went.exit_code == 0, went.exception


def test_a_dry_run_writes_nothing(place: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, arguments(place, tmp_path / "run", "--steps", "100", "--dry-run", "--json"))
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    assert found["steps"] == 100
    assert found["tokens_per_second"] > 0
    assert found["memory_bytes"] > 10**7
    assert not (tmp_path / "run").exists()


def test_interrupted_it_saves_says_how_to_go_on_and_ends_with_130(place: Path, tmp_path: Path) -> None:
    """The first line of the log is the sign that steps are being made; the state lies between the regular ones."""
    command = arguments(
        place,
        tmp_path / "run",
        "--steps",
        "100000",
        "--set",
        "run.save_every=100000",
        "--set",
        "run.evaluate_every=5",
    )
    code = "from cli.main import run; run()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *command],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if line.startswith("step 5 of"):
                os.kill(process.pid, signal.SIGINT)
    assert process.returncode == 130, seen
    assert "stopping after this step; the state is saved" in seen
    [resume] = [line.strip() for line in seen.splitlines() if line.strip().endswith("--resume")]
    assert resume.startswith("embedkit train mlm ")
    [state] = (tmp_path / "run" / "training" / "states").iterdir()
    assert int(state.name) >= 5


def test_a_run_goes_on_only_as_it_was(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert runner.invoke(app, arguments(place, output, "--steps", "4")).exit_code == 0
    again = runner.invoke(app, arguments(place, output, "--steps", "4"))
    assert isinstance(again.exception, OutputError)
    assert "Go on with it by --resume, or choose another --output" in str(again.exception)
    other = runner.invoke(app, arguments(place, output, "--steps", "5", "--resume"))
    assert isinstance(other.exception, TrainingError)
    assert "recipe.run.steps: 4 -> 5" in str(other.exception)
    more = place / "more.jsonl"
    write_texts(more, documents=130)
    changed = arguments(place, output, "--steps", "4", "--resume")
    changed[2] = str(more)
    other = runner.invoke(app, changed)
    assert isinstance(other.exception, TrainingError)
    assert "data.corpus: " in str(other.exception)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "x"], "name either --tokenizer, for a fresh model, or --model"),
        (["--next-sentence", "--sentence-order"], "--next-sentence and --sentence-order exclude each other"),
    ],
)
def test_wrong_usage_ends_with_2(place: Path, tmp_path: Path, more: list[str], message: str) -> None:
    result = runner.invoke(app, arguments(place, tmp_path / "run", *more))
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_settings_that_do_not_fit_are_told(place: Path, tmp_path: Path) -> None:
    wrong = runner.invoke(app, arguments(place, tmp_path / "run", "--steps", "1", "--set", "optim.lrr=1"))
    assert isinstance(wrong.exception, RecipeError)
    assert "unknown key optim.lrr; did you mean optim.lr?" in str(wrong.exception)
    missing = runner.invoke(app, arguments(place, tmp_path / "run"))
    assert isinstance(missing.exception, RecipeError)
    assert "missing key run.steps" in str(missing.exception)


def test_a_vocabulary_the_text_cannot_give_is_refused_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    result = runner.invoke(
        app,
        [
            "train",
            "tokenizer",
            str(place / "texts.jsonl"),
            "-o",
            str(tmp_path / "tokenizer"),
            "--vocab-size",
            "9000",
        ],
    )
    assert isinstance(result.exception, TrainingError)
    assert "9,000 were asked for" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
