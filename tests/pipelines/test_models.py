"""Which model a command takes, and that it says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.shared.commands import with_reranker
from embedkit.errors import CheckpointError, OutputError
from embedkit.models import ENCODER, RERANKER
from indexes import Index
from tests.checkpoint.test_sparse import write_tiny_sparse
from tests.judged import write_judged_set
from tests.tiny import write_tiny_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder
from tests.tiny_multi_vector import write_tiny_multi_vector

TEXTS = ["the dog runs", "a cat sleeps on the beach", "a man walks with a horse"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EMBEDKIT_MODEL", raising=False)


def run(
    *arguments: object, stdin: str | None = None
) -> Any:  # Any: click's result, which is not to be imported
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"_id": f"t{i}", "text": t}) + "\n" for i, t in enumerate(TEXTS)))
    return path


def built(folder: Path, texts: Path, *model: object) -> Path:
    result = run("index", "build", texts, "--index", folder / "my.index", *model)
    assert result.exit_code == 0, result.exception
    return folder / "my.index"


def test_the_environment_names_the_model_wherever_none_was_named(
    texts: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDKIT_MODEL", str(tiny_model))
    pairs, sts = tmp_path / "pairs.tsv", tmp_path / "sts.tsv"
    pairs.write_text("query\tpositive\na dog\tthe dog runs\na cat\tthe cat sleeps\n", encoding="utf-8")
    sts.write_text("sentence1\tsentence2\tscore\ndog\tdogs\t4\nred\tpiano\t1\na\tb\t2\n", encoding="utf-8")
    judged = write_judged_set(tmp_path / "mini")
    said = f"model {tiny_model}"
    for command in (
        ("encode", texts, "-o", tmp_path / "v.npy"),
        ("index", "build", texts, "--index", tmp_path / "an.index"),
        ("pairs", texts),
        ("mine", pairs, "-o", tmp_path / "mined.jsonl", "--no-margin"),
        ("explain", "a dog", "the dog runs"),
        ("evaluate", "similarity", sts),
        ("evaluate", "retrieval", judged),
    ):
        result = run(*command)
        assert result.exit_code == 0, (command, result.exception)
        assert result.stderr.count(said) == 1, (command, result.stderr)
    assert json.loads(run("model", "info", "--json").stdout)["model"] == str(tiny_model)


def test_an_indexs_own_model_comes_before_the_environments(
    texts: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built(tmp_path, texts, "--model", tiny_model)
    monkeypatch.setenv("EMBEDKIT_MODEL", str(write_tiny_model(tmp_path / "other", seed=1)))
    result = run("search", index, "a dog", "--all")
    assert result.exit_code == 0, result.exception
    assert result.stderr == f"model {tiny_model}\n"
    again = run("index", "add", texts, "--index", index, "--json")
    assert json.loads(again.stdout)["model"] == str(tiny_model)


def test_a_model_that_moved_is_found_by_its_fingerprint(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_model(tmp_path / "model")
    index = built(tmp_path, texts, "--model", folder)
    moved = folder.rename(tmp_path / "moved")
    lost = run("search", index, "a dog")
    assert isinstance(lost.exception, CheckpointError)
    assert (
        f"{index}: its model was {folder}, where there is no folder, and it was not {ENCODER}. "
        "Name the model that it was built with: --model FOLDER"
    ) in str(lost.exception)
    monkeypatch.setenv("EMBEDKIT_MODEL", str(write_tiny_model(tmp_path / "other", seed=1)))
    wrong = run("search", index, "a dog")
    assert f"and it was not {tmp_path / 'other'} or {ENCODER}" in str(wrong.exception)
    monkeypatch.setenv("EMBEDKIT_MODEL", str(moved))
    found = run("search", index, "a dog", "--all")
    assert (found.exit_code, found.stderr) == (0, f"model {moved}\n")


def test_a_search_says_what_ranked_the_hits(texts: Path, tiny_model: Path, tmp_path: Path) -> None:
    index = built(tmp_path, texts, "--model", tiny_model)
    reranker = write_tiny_cross_encoder(tmp_path / "reranker")
    both = run("search", index, "a dog", "--rerank", reranker)
    assert both.stderr == f"model {tiny_model}, reranked by {reranker}\n"
    assert run("search", index, "dog", "--mode", "text").stderr == ""
    words = run("search", index, "dog", "--mode", "text", "--rerank", reranker)
    assert words.stderr == f"reranked by {reranker}\n"
    tokens = run("search", index, "dog", "--rerank", "maxsim")
    assert tokens.stderr == f"model {tiny_model}, reranked by maxsim\n"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["i", "q", "--rerank"], ["i", "q", "--rerank", RERANKER]),
        (["i", "--rerank", "-k", "5", "q"], ["i", "--rerank", RERANKER, "-k", "5", "q"]),
        (["i", "q", "--rerank", "./folder"], ["i", "q", "--rerank", "./folder"]),
        (["i", "--rerank", "wind energy"], ["i", "--rerank", RERANKER, "wind energy"]),
        (["i", "--rerank", "embedkit-rerank-smal"], ["i", "--rerank", "embedkit-rerank-smal"]),
        (["i", "q", "--rerank=folder", "-k", "5"], ["i", "q", "--rerank=folder", "-k", "5"]),
        (["i", "--", "--rerank"], ["i", "--", "--rerank"]),
        (["i", "--rerank", "--", "q"], ["i", "--rerank", RERANKER, "--", "q"]),
    ],
)
def test_rerank_without_a_value_is_the_shipped_one(given: list[str], read: list[str]) -> None:
    assert with_reranker(given) == read


def test_info_tells_what_decides_a_cross_encoders_scores(tmp_path: Path) -> None:
    folder = write_tiny_cross_encoder(tmp_path / "reranker", labels=("no", "yes"))
    info = json.loads(run("model", "info", folder, "--json").stdout)
    assert (info["family"], info["labels"], info["layers"]) == ("bert cross-encoder", ["no", "yes"], 2)
    assert info["weights_bytes"] == (folder / "model.safetensors").stat().st_size


def test_without_a_name_the_shipped_encoder_encodes_indexes_and_searches(
    texts: Path, shipped_encoder: Path, tmp_path: Path
) -> None:
    made = run("encode", texts, "-o", tmp_path / "v.npy", "--json")
    assert made.exit_code == 0, made.exception
    assert json.loads(made.stdout)["model"] == ENCODER
    index = built(tmp_path, texts)
    with Index.open(index) as opened:  # a name outlives an installation, a path does not
        assert opened.model_path == ENCODER
    found = run("search", index, "someone riding a pony", "-k", 1, "--mode", "dense", "--json")
    assert (found.exit_code, found.stderr) == (0, f"model {ENCODER}\n")
    assert json.loads(found.stdout)["text"] == TEXTS[2]
    cosine = json.loads(found.stdout)["score"]
    run("encode", "-", "-o", tmp_path / "q.npy", stdin="someone riding a pony\n")
    assert cosine == pytest.approx(
        float(np.load(tmp_path / "q.npy")[0] @ np.load(tmp_path / "v.npy")[2]), abs=1e-5
    )


def test_without_a_name_the_shipped_reranker_reranks(
    texts: Path, tiny_model: Path, shipped_reranker: Path, tmp_path: Path
) -> None:
    index = built(tmp_path, texts, "--model", tiny_model)
    found = run("search", index, "a horse", "--rerank", "-k", 3, "--json")
    assert (found.exit_code, found.stderr) == (0, f"model {tiny_model}, reranked by {RERANKER}\n")
    line = json.dumps({"query": "a horse", "candidates": TEXTS}) + "\n"
    alone = run("rerank", stdin=line)
    assert alone.stderr == f"1 query, 3 candidates scored, model {RERANKER}\n"
    scores = [candidate["rerank_score"] for candidate in json.loads(alone.stdout)["candidates"]]
    assert scores == sorted(scores, reverse=True)
    judged = write_judged_set(tmp_path / "mini")
    rows = [json.loads(row) for row in run("evaluate", "reranking", judged).stdout.splitlines()]
    assert [row["system"] for row in rows] == ["BM25", f"BM25 + {RERANKER}"]
    searched = run("evaluate", "retrieval", judged, "--mode", "text", "--rerank", "--candidates", 3)
    assert [json.loads(row)["system"] for row in searched.stdout.splitlines()] == [
        "BM25",
        f"BM25 + {RERANKER}",
    ]


def test_a_shipped_reranker_is_not_calibrated_in_place(shipped_reranker: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("query\ttext\tlabel\na\tb\t1\na\tc\t0\n", encoding="utf-8")
    refused = run("rerank", "--calibrate", tmp_path / "pairs.tsv")
    assert isinstance(refused.exception, OutputError)
    assert (
        f"{RERANKER}: the calibration lies in the model's folder, and this one belongs to the installation"
        in str(refused.exception)
    )
    assert f"cp -r {shipped_reranker} COPY" in str(refused.exception)


@pytest.mark.parametrize("kind", ["multi-vector", "sparse"])
def test_a_model_of_another_kind_that_moved_is_found_by_its_fingerprint(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    make = write_tiny_multi_vector if kind == "multi-vector" else write_tiny_sparse
    folder = make(tmp_path / "model")
    index = built(tmp_path, texts, "--model", folder)
    moved = folder.rename(tmp_path / "moved")
    monkeypatch.setenv("EMBEDKIT_MODEL", str(moved))
    found = run("search", index, "a dog", "--all")
    assert (found.exit_code, found.stderr) == (0, f"model {moved}\n"), found.exception
