"""`--merge-tokens`: where it may be said, and what an index makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.errors import IndexMismatchError
from embedkit.native.encoder import why_not as native_why_not
from tests.judged import write_judged_set
from tests.tiny import tiny_config, write_tiny_model

Run = Any  # click's result, whose module is not to be imported
LONG = "a small red horse eats a large green guitar by the beach and the dog sings " * 4
CONFIG = tiny_config(num_attention_heads=2)  # heads of 16, the fewest that the kernels compute
needs_kernels = pytest.mark.skipif(
    native_why_not(CONFIG, "fp32") is not None, reason=f"no kernels: {native_why_not(CONFIG, 'fp32')}"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model", config=CONFIG, max_length=64)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [{"id": "long", "text": LONG}, {"id": "short", "text": "the dog runs"}]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EMBEDKIT_PRECISION", "fp32")
    monkeypatch.delenv("EMBEDKIT_MODEL", raising=False)


def run(*arguments: object) -> Run:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows_of(*arguments: object) -> list[dict[str, Any]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_encode_merges_in_long_texts_alone(model: Path, corpus: Path, tmp_path: Path) -> None:
    found = {}
    for share in ("0", "0.2"):
        output = tmp_path / f"{share}.npy"
        (said,) = rows_of("encode", corpus, "-m", model, "-o", output, "--merge-tokens", share, "--quiet")
        assert said.get("merge_tokens", 0) == float(share)
        found[share] = np.load(output)
    cosines = (found["0"] * found["0.2"]).sum(axis=1)
    assert 0.9 < cosines[0] < 1 - 1e-6
    assert cosines[1] == pytest.approx(1, abs=1e-6)


def test_an_index_keeps_its_share_and_refuses_another(model: Path, corpus: Path, tmp_path: Path) -> None:
    index = tmp_path / "my.index"
    build = ("index", "build", corpus, "--index", index)
    rows_of(*build, "--model", model, "--merge-tokens", "0.1")
    assert rows_of(*build)[0]["unchanged"] == 2  # nothing said: its own
    assert rows_of("index", "add", corpus, "--index", index)[0]["unchanged"] == 2
    assert rows_of(*build, "--merge-tokens", "0.1")[0]["unchanged"] == 2
    hit = rows_of("search", index, LONG, "--top-k", "1", "--mode", "dense")[0]
    assert hit["id"] == "long"
    assert hit["score"] == pytest.approx(1, abs=1e-5)  # the query's tokens are merged alike
    for share in ("0", "0.2"):
        result = run(*build, "--merge-tokens", share)
        assert isinstance(result.exception, IndexMismatchError)
        here = "(absent)" if share == "0" else share
        assert f"merge_tokens is 0.1 there and {here} here" in str(result.exception)


def test_an_index_without_merging_refuses_it(model: Path, corpus: Path, tmp_path: Path) -> None:
    index = tmp_path / "my.index"
    rows_of("index", "build", corpus, "--index", index, "--model", model)
    result = run("index", "build", corpus, "--index", index, "--merge-tokens", "0.1")
    assert isinstance(result.exception, IndexMismatchError)
    assert "merge_tokens is (absent) there and 0.1 here" in str(result.exception)


def test_a_model_that_has_moved_is_known_again(
    model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, moved = tmp_path / "my.index", tmp_path / "elsewhere"
    rows_of("index", "build", corpus, "--index", index, "--model", model, "--merge-tokens", "0.1")
    shutil.move(model, moved)
    monkeypatch.setenv("EMBEDKIT_MODEL", str(moved))
    assert rows_of("search", index, "the dog runs", "--top-k", "1")[0]["id"] == "short"


def test_a_system_that_merges_is_measured_under_its_name(model: Path, tmp_path: Path) -> None:
    judged = write_judged_set(tmp_path / "mini")
    evaluate = ("evaluate", "retrieval", judged, "-m", model, "--device", "cpu")
    rows = rows_of(*evaluate, "--merge-tokens", "0.2")
    assert rows[0]["system"] == "BM25"
    assert rows[1]["system"].endswith("/model merging 0.2")
    prints = [each[-1]["provenance"]["fingerprint"] for each in (rows, rows_of(*evaluate))]
    assert prints[0] != prints[1]


@needs_kernels
@pytest.mark.slow  # it measures cold starts, too
def test_bench_measures_what_merges(model: Path, corpus: Path, tmp_path: Path) -> None:
    index = tmp_path / "my.index"
    rows_of("index", "build", corpus, "--index", index, "--model", model)
    how = ("--index", index, "--precision", "fp32", "--length", "64", "--batch", "1", "--seconds", "0")
    rows = rows_of("bench", "-m", model, *how, "--merge-tokens", "0.5")
    assert 0.9 < next(row["cosine_to_fp32"] for row in rows if "cosine_to_fp32" in row) < 1 - 1e-6


def test_a_share_above_one_half_is_wrong_usage(model: Path, corpus: Path) -> None:
    result = run("encode", corpus, "-m", model, "--merge-tokens", "0.6")
    assert result.exit_code == 2
    assert "Invalid value for '--merge-tokens'" in result.output
