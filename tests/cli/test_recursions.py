"""`--recursions`, and what training shows and writes of models that route tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.train.progress import View
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from embedkit.training.engine.reporting import Evaluated, Step
from tests.tiny import ROUTED_SHAPES, tiny_config, write_tiny_model

TEXTS = ("the dog runs in the water", "a small red horse eats a large green guitar by the beach", "song")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model", config=tiny_config(**ROUTED_SHAPES["expert choice"]))


def run(*arguments: object) -> Any:  # Any: click's result, whose module is not to be imported
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_encode_runs_fewer_recursions_and_says_so(model: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    result = run("encode", texts, "--model", model, "-o", tmp_path / "v.npy", "--recursions", 2, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["recursions"] == 2
    expected = Encoder.load(model, device="cpu", recursions=2).encode(TEXTS)
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, rtol=0, atol=1e-6)
    assert np.abs(expected - Encoder.load(model, device="cpu").encode(TEXTS)).max() > 1e-3
    refused = run("encode", texts, "--model", model, "--recursions", 9)
    assert isinstance(refused.exception, CheckpointError)
    assert "recursions is 9; the model was trained with 3. Choose from 1 to 3" in str(refused.exception)


def test_evaluations_tell_how_often_layers_recurred(model: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    lines = [f"{a}\t{b}\t{score}" for score, (a, b) in enumerate(zip(TEXTS, TEXTS[::-1], strict=True))]
    pairs.write_text("sentence1\tsentence2\tscore\n" + "\n".join(lines) + "\n", encoding="utf-8")
    plain = run("evaluate", "similarity", pairs, "--model", model, "--json")
    fewer = run("evaluate", "similarity", pairs, "--model", model, "--recursions", 1, "--json")
    assert (plain.exit_code, fewer.exit_code) == (0, 0), (plain.output, fewer.output)
    names = [json.loads(each.stdout)["system"] for each in (plain, fewer)]
    assert [name.rpartition("/")[2] for name in names] == ["model", "model recursions 1"]


def test_the_view_shows_what_routers_do_and_leaves_the_rest_to_the_summary() -> None:
    view = View(10, 1e12)
    values = {"router_entropy": 2.05, "experts_used": 8.0, "dropped": 0.0123, "balance_loss": 1.01}
    view.take(Step(1, 3.0, values, 1e-3, 1.0, 1000, 1e9, 1.0))
    view.take(Evaluated(1, {"loss": 3.1, "depth": 1.9, "depth_word": 2.2, "router_entropy": 2.0}, True))
    assert view.text() == (
        "loss 3.000  held out  loss 3.100  entropy 2.05  dropped 0.0123  1,000 tokens/s  0% of peak"
    )
    assert view.news.endswith(view.text())


def test_a_run_of_experts_from_the_command_line(tmp_path: Path) -> None:
    """The shape of a shipped preset made small; measures of its routers stand in the summary and in the log."""
    texts = tmp_path / "texts.txt"
    words = [
        "the",
        "a",
        "dog",
        "cat",
        "horse",
        "girl",
        "boy",
        "runs",
        "sleeps",
        "eats",
        "sings",
        "in",
        "by",
        "red",
        "blue",
        "small",
        "house",
        "garden",
    ]
    rng = np.random.default_rng(0)
    texts.write_text("\n".join(" ".join(rng.choice(words, 12)) + "." for _ in range(80)), encoding="utf-8")
    assert run("train", "tokenizer", texts, "-o", tmp_path / "tok", "--vocab-size", 60).exit_code == 0
    small = ("hidden_size=32", "num_attention_heads=2", "intermediate_size=32", "max_position_embeddings=32")
    settings = [
        *(f"model.{each}" for each in small),
        *("text.short_steps=0", "text.sequence_length=16", "text.batch_tokens=256", "text.held_out=0.2"),
        *("run.precision=fp32", "model.experts.intermediate_size=16", "model.experts.capacity_factor=1"),
    ]
    options = [word for each in settings for word in ("--set", each)]
    shared = ("train", "mlm", texts, "--tokenizer", tmp_path / "tok", "--steps", 2, *options)
    found = run(*shared, "--preset", "mini-moe", "-o", tmp_path / "out", "--cache", tmp_path / "c", "--json")
    assert found.exit_code == 0, (found.output, found.exception)
    summary = json.loads(found.stdout.splitlines()[-1])
    assert summary["experts_used"] > 1
    log = (tmp_path / "out" / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    values = json.loads(log[0])["values"]
    assert {"router_entropy", "experts_used", "dropped", "balance_loss", "z_loss"} <= set(values)
    assert Encoder.load(tmp_path / "out").encode("the dog").shape == (32,)
    masked = run("fill-mask", "the [MASK] runs", "--model", tmp_path / "out", "--json")
    assert masked.exit_code == 0, (masked.output, masked.exception)
