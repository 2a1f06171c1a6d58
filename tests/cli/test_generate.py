"""`embedkit generate` from the shell's side."""

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
from embedkit.errors import CheckpointError, OutputError, RecipeError
from tests.conftest import REPOSITORY
from tests.tiny_generator import write_tiny_generator

runner = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_generator(tmp_path_factory.mktemp("g") / "model"))


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_generator(tmp_path_factory.mktemp("g") / "lm", encoder_size=None))


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.jsonl"
    rows = [{"id": "a", "text": "the dog runs"}, {"id": "b", "text": ""}, {"id": "c", "text": "東京 " * 40}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_each_text_gets_its_outputs_and_what_is_odd_is_said(model: str, texts: str) -> None:
    result = runner.invoke(app, ["generate", texts, "--model", model, "-n", "2", "--max-new-tokens", "4"])
    assert result.exit_code == 0, result.exception
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["id"], len(row["outputs"])) for row in rows] == [("a", 2), ("b", 0), ("c", 2)]
    for said in (
        "3 texts, 4 outputs of 16 tokens",
        "warning: 1 text cut to the tokens that the model reads; the first is",
        "warning: 1 text empty and without an output",
        "warning: 1 text of which more than a fifth of the tokens are unknown to the model",
        "4 outputs stopped at the limit of 4 tokens (--max-new-tokens)",
    ):
        assert said in result.stderr


def test_a_pipe_is_read_and_lines_are_written(model: str) -> None:
    result = runner.invoke(
        app, ["generate", "-", "--model", model, "--as", "lines", "--quiet"], input="the dog\n\na cat\n"
    )
    assert result.exit_code == 0, result.exception
    lines = result.stdout.split("\n")
    assert (len(lines), lines[1], lines[3]) == (4, "", "")  # in step with the texts
    assert lines[0]
    assert result.stderr == "warning: 1 text empty and without an output; the first is stdin:2\n"


def test_the_same_seed_draws_the_same_texts(model: str, texts: str) -> None:
    def drawn(seed: int) -> str:
        sampling = [
            "--method",
            "sample",
            "--num-queries",
            "3",
            "--top-k",
            "50",
            "--top-p",
            "0.95",
            "--seed",
            str(seed),
        ]
        return runner.invoke(
            app, ["generate", texts, "--model", model, *sampling, "--temperature", "1.2"]
        ).stdout

    assert drawn(1) == drawn(1) != drawn(2)


def test_pairs_are_rows_to_train_on(model: str, texts: str, tmp_path: Path) -> None:
    output = tmp_path / "pairs.jsonl"
    words = ["generate", texts, "--model", model, "--output", str(output), "--as", "pairs", "--json"]
    result = runner.invoke(app, [*words, "--method", "sample", "-n", "4"])
    assert result.exit_code == 0, result.exception
    summary = json.loads(result.stdout)
    assert (summary["texts"], summary["outputs"], summary["done"]) == (3, 8, True)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert {(row["positive"], row["id"]) for row in rows} == {
        ("the dog runs", "a"),
        (("東京 " * 40).strip(), "c"),
    }
    again = runner.invoke(app, words)
    assert isinstance(again.exception, OutputError)


def test_a_language_model_continues_prompts(language_model: str, texts: str) -> None:
    result = runner.invoke(app, ["generate", texts, "--model", language_model, "--method", "greedy"])
    assert result.exit_code == 0, result.exception
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(len(row["outputs"]) == 1 for row in rows)  # of an empty prompt too
    assert "empty" not in result.stderr


def test_wrong_usage_is_told(model: str, texts: str, tiny_model: Path, tmp_path: Path) -> None:
    def error(*words: str, model: str = model) -> BaseException | None:
        return runner.invoke(app, ["generate", texts, "--model", model, *words]).exception

    found = error("--num-beams", "2", "-n", "3")
    assert isinstance(found, RecipeError)
    assert "num_outputs is 3 of 2 beams" in str(found)
    assert "max_new_tokens is 99; the decoder's position table ends at 40" in str(
        error("--max-new-tokens", "99")
    )
    assert "temperature is 0.0; it must be above 0" in str(error("--temperature", "0"))
    assert isinstance(error("--output", str(tmp_path / "o.npy")), OutputError)
    found = error(model=str(tiny_model))
    assert isinstance(found, CheckpointError)
    assert "this is no text generator (BertModel)" in str(found)


@pytest.mark.parametrize(
    "words",
    [
        ["encode", "TEXTS", "--model", "MODEL"],
        ["fill-mask", "a [MASK]", "--model", "MODEL"],
        ["rerank", "CANDIDATES", "--model", "MODEL"],
        ["model", "check", "MODEL"],
        ["index", "build", "TEXTS", "--index", "INDEX", "--model", "MODEL"],
        ["train", "mlm", "TEXTS", "--model", "MODEL", "--output", "OUT", "--steps", "1"],
        ["train", "contrastive", "PAIRS", "--model", "MODEL", "--output", "OUT", "--steps", "1"],
        ["train", "reranker", "PAIRS", "--model", "MODEL", "--output", "OUT", "--steps", "1"],
        ["train", "distill", "TEXTS", "--teacher", "MODEL", "--output", "OUT", "--steps", "1"],
        ["evaluate", "similarity", "PAIRS", "--model", "MODEL", "--task", "sts", "--columns", "query,positive,score"],
    ],
    ids=lambda words: " ".join(words[:2]),
)  # fmt: skip
def test_commands_that_want_another_kind_of_model_say_so(words: list[str], model: str, texts: str, tmp_path: Path) -> None:  # fmt: skip
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"query": f"a {i}", "positive": f"b {i}", "score": i / 9} for i in range(9)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    candidates = tmp_path / "candidates.jsonl"
    candidates.write_text('{"query": "a", "candidates": [{"id": "x", "text": "b"}]}\n', encoding="utf-8")
    places = {"CANDIDATES": str(candidates), "TEXTS": texts, "MODEL": model, "PAIRS": str(pairs), "INDEX": str(tmp_path / "i"), "OUT": str(tmp_path / "o")}  # fmt: skip
    result = runner.invoke(app, [places.get(word, word) for word in words])
    assert isinstance(result.exception, CheckpointError), (result.exception, result.stderr)
    assert "text generator (encoder-decoder), which gives no vectors and scores no pairs" in str(
        result.exception
    )


def test_model_info_describes_a_generator(model: str, language_model: str) -> None:
    found = [
        json.loads(runner.invoke(app, ["model", "info", folder, "--json"]).stdout)
        for folder in (model, language_model)
    ]
    assert [content["family"] for content in found] == ["bert encoder–decoder", "language model"]
    assert found[0]["decoder_layers"] == found[0]["layers"] == 2
    assert found[0]["generation"] == {"max_new_tokens": 10}
    assert found[1]["positions"] == 40


@pytest.mark.slow
def test_an_interrupted_command_says_how_to_go_on_and_does(model: str, tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("".join(f"the dog runs {i}\n" for i in range(2000)), encoding="utf-8")
    program = "import sys; sys.argv[0] = 'embedkit'; from cli.main import run; run()"
    command = [sys.executable, "-c", program, "generate", str(path), "--model", model]

    def start(output: Path) -> subprocess.Popen[str]:
        words = [*command, "--output", str(output)]
        return subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)

    broken, whole = tmp_path / "broken.jsonl", tmp_path / "whole.jsonl"
    with start(broken) as process:
        journal = tmp_path / "broken.jsonl.partial" / "journal.json"
        while not journal.exists() and process.poll() is None:
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "resume with the same command" in said
    for output in (broken, whole):
        with start(output) as process:
            process.communicate(timeout=300)
        assert process.returncode == 0
    assert broken.read_bytes() == whole.read_bytes()
