"""Models whose folder says more than one encoder does: ways for queries and documents, and how vectors are compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.similarity import similarity
from indexes import Index
from tests.tiny import write_tiny_model

TEXTS = {"d0": "the dog runs", "d1": "a cat sleeps", "d2": "the boy sings an old song"}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    rows = [{"_id": name, "text": text} for name, text in TEXTS.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(*words: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.stdout, f"{result.stderr}{result.exception}"


def metric_of(path: Path) -> str:
    with Index.open(path) as index:
        return index.settings.metric


def write_routed(folder: Path) -> Path:
    """Write a folder as sentence-transformers' router does, of two tiny models."""
    folder.mkdir()
    types: dict[str, str] = {}
    structure: dict[str, list[str]] = {}
    for seed, role in enumerate(("query", "document")):
        side = write_tiny_model(folder.parent / role, seed=seed)
        names = [f"{role}_0_Transformer", f"{role}_1_Pooling"]
        shutil.copytree(side, folder / names[0], ignore=shutil.ignore_patterns("[12]_*", "modules.json"))
        shutil.copytree(side / "1_Pooling", folder / names[1])
        structure[role] = names
        types |= {name: f"sentence_transformers.models.{name.rpartition('_')[2]}" for name in names}
    router = {"types": types, "structure": structure, "parameters": {"default_route": "document"}}
    (folder / "router_config.json").write_text(json.dumps(router), encoding="utf-8")
    rows = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]
    (folder / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def test_an_index_is_built_by_the_documents_model_and_searched_by_the_queries(
    corpus: Path, tmp_path: Path
) -> None:
    model = write_routed(tmp_path / "routed")
    run("index", "build", corpus, "-i", tmp_path / "i", "-m", model)
    out, _ = run("search", tmp_path / "i", "a boy runs", "--mode", "dense", "--json")
    hits = {row["id"]: row["score"] for row in map(json.loads, out.splitlines())}
    query = Encoder.load(tmp_path / "query", device="cpu").encode(["a boy runs"])
    documents = Encoder.load(tmp_path / "document", device="cpu").encode(list(TEXTS.values()))
    wanted = dict(zip(TEXTS, similarity(query, documents, measure="cosine")[0], strict=True))
    assert hits == pytest.approx(wanted, abs=1e-5)
    info = json.loads(run("model", "info", model, "--json")[0])
    assert info["kind"] == "dense"
    assert set(info["routes"]) == {"query", "document"}
    _, error = run("explain", "a boy runs", "the dog runs", "-m", model, code=1)
    assert "modules of their own (Router), and explaining takes one model" in error


@pytest.mark.parametrize(("said", "metric"), [("cosine", "cosine"), ("dot", "dot"), ("euclidean", "l2")])
def test_an_index_compares_as_the_models_folder_says(
    said: str, metric: str, corpus: Path, tmp_path: Path
) -> None:
    model = write_tiny_model(tmp_path / "m", similarity=said)
    run("index", "build", corpus, "-i", tmp_path / "i", "-m", model)
    assert metric_of(tmp_path / "i") == metric
    run("index", "build", corpus, "-i", tmp_path / "own", "-m", model, "--metric", "dot")
    assert metric_of(tmp_path / "own") == "dot"


def test_a_similarity_that_no_index_searches_by_is_refused(corpus: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m", similarity="manhattan")
    _, error = run("index", "build", corpus, "-i", tmp_path / "i", "-m", model, code=1)
    assert (
        "its similarity_fn_name is 'manhattan', by which no index searches; choose another with --metric"
        in error
    )
    run("index", "build", corpus, "-i", tmp_path / "i", "-m", model, "--metric", "cosine")


def test_distances_are_negated() -> None:
    """(0, 0) and (3, 4): 5 apart, or 7 along the axes."""
    first, second = np.zeros((1, 2), np.float32), np.array([[3, 4], [0, 0]], np.float32)
    np.testing.assert_allclose(similarity(first, second, measure="euclidean"), [[-5, 0]])
    np.testing.assert_allclose(similarity(first, second, measure="manhattan"), [[-7, 0]])
