"""`embedkit encode`, `rerank`, `model info` and `model list` with a multi-vector model."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.data.reading import read_documents
from embedkit.encoding import windows
from embedkit.encoding.job import EncodeOptions, encode_to_file
from embedkit.encoding.multi_vector import MultiVectorEncoder
from tests.tiny import write_tiny_model
from tests.tiny_multi_vector import write_tiny_multi_vector

TEXTS = ["the dog runs.", "", "the old man walks by the water and " * 3, "the dog runs."]


def run(*arguments: object, stdin: str | None = None) -> Any:  # Any: click's result
    return CliRunner().invoke(app, [*map(str, arguments)], input=stdin)


def said(result: Any) -> str:
    """What a person is told, on one line: an error that the entry point would print is still an exception here."""
    return " ".join(f"{result.stderr} {result.exception}".split())


def loaded(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_multi_vector(tmp_path_factory.mktemp("mv") / "model")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = ({"_id": f"d{i}", "text": text} for i, text in enumerate(TEXTS))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_an_archive_holds_vectors_counts_and_ids(corpus: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "v.npz"
    result = run(
        "encode", corpus, "--model", model, "--role", "document", "-o", output, "--precision", "fp32"
    )
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    expected = MultiVectorEncoder.load(model).encode_documents(TEXTS)
    found = loaded(output)
    assert sorted(found) == ["counts", "ids", "vectors"]
    assert found["ids"].tolist() == ["d0", "d1", "d2", "d3"]
    assert (found["counts"].dtype, found["vectors"].dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(found["counts"], expected.counts)
    np.testing.assert_allclose(found["vectors"], expected.vectors, atol=1e-6)
    summary, *notes = result.stderr.splitlines()
    assert summary.startswith("4 texts, 30 tokens in ")
    assert summary.endswith(f"-> {output} (35 vectors × 16), model {model}")
    assert notes == [
        f"warning: 1 text cut to the 20 tokens that the model reads; the first is {corpus}:3. "
        "Keep the vectors of all pieces with --on-truncate chunk",
        f"warning: 1 text empty or without tokens for this model; the first is {corpus}:2",
        "note: 1 text stood earlier already",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "v.npz"]


def test_json_lines_hold_a_list_for_each_token(corpus: Path, model: Path, tmp_path: Path) -> None:
    result = run("encode", corpus, "-m", model, "--role", "query", "--precision", "fp32")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    expected = MultiVectorEncoder.load(model).encode_queries(TEXTS)
    assert [row["id"] for row in rows] == ["d0", "d1", "d2", "d3"]
    for number, row in enumerate(rows):
        np.testing.assert_allclose(row["embeddings"], expected.text(number), atol=1e-6)
    output = tmp_path / "v.jsonl"
    assert run("encode", corpus, "-m", model, "--role", "query", "-o", output).exit_code == 0
    assert output.read_text(encoding="utf-8") == result.stdout


def test_the_summary_as_json_counts_vectors(corpus: Path, model: Path, tmp_path: Path) -> None:
    how = ("--role", "document", "--token-pooling", 2, "--json")
    result = run("encode", corpus, "-m", model, "-o", tmp_path / "v.npz", *how)
    summary = json.loads(result.stdout)
    wanted = {
        "texts": 4,
        "vectors": 3 + 2 + 10 + 3,
        "dimension": 16,
        "token_pooling": 2,
        "truncated": 1,
        "empty": 1,
    }
    assert {key: summary[key] for key in wanted} == wanted


def test_what_stopped_goes_on_with_the_same_bits(
    corpus: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 2)
    encoder = MultiVectorEncoder.load(model)
    options = EncodeOptions(role="document")

    def job(name: str) -> Any:
        return encode_to_file(encoder, read_documents([str(corpus)]), tmp_path / name, options)

    *_, last = job("whole.npz")
    list(islice(job("parts.npz"), 2))
    assert (tmp_path / "parts.npz.partial").is_dir()
    *_, resumed = job("parts.npz")
    assert (last.resumed_at, resumed.resumed_at, resumed.vectors) == (0, 2, last.vectors)
    whole, parts = loaded(tmp_path / "whole.npz"), loaded(tmp_path / "parts.npz")
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])


def test_a_stop_before_the_archive_has_its_name_is_made_good(
    corpus: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = MultiVectorEncoder.load(model)
    output, folder = tmp_path / "v.npz", tmp_path / "v.npz.partial"

    def job() -> Any:
        return encode_to_file(encoder, read_documents([str(corpus)]), output, EncodeOptions(role="document"))

    list(islice(job(), 2))  # the window is committed, and nothing finished
    (folder / "archive").write_bytes(b"half")
    (folder / "vectors").rename(folder / "packed")
    *_, resumed = job()
    assert resumed.resumed_at == 4
    expected = encoder.encode_documents(TEXTS)
    np.testing.assert_array_equal(loaded(output)["vectors"], expected.vectors)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "encodes queries and documents in ways of their own: --role query or --role document"),
        (("--role", "document", "-o", "v.npy"), 1, "vectors of its own number, which .npy does not hold"),
        (
            ("--role", "document", "--merge-tokens", 0.1),
            2,
            "--merge-tokens does not go with a multi-vector model",
        ),
        (
            ("--role", "document", "--truncate-dim", 3),
            2,
            "--truncate-dim does not go with a multi-vector model",
        ),
        (("--role", "query", "--token-pooling", 2), 2, "--token-pooling is of documents"),
        (("--role", "query", "--on-truncate", "chunk"), 2, "--on-truncate chunk is of documents"),
    ],
)
def test_what_does_not_go_with_the_kind_is_refused(
    corpus: Path, model: Path, options: tuple[object, ...], code: int, message: str
) -> None:
    result = run("encode", corpus, "-m", model, *options)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in said(result)


def test_a_dense_model_refuses_what_is_of_tokens(corpus: Path, tmp_path: Path) -> None:
    dense = write_tiny_model(tmp_path / "dense")
    result = run("encode", corpus, "-m", dense, "--token-pooling", 2)
    assert result.exit_code == 2
    assert "--token-pooling goes with a multi-vector model" in said(result)
    result = run("encode", corpus, "-m", dense, "-o", tmp_path / "v.npz")
    assert result.exit_code == 1
    assert "vectors are written as .npy or .jsonl" in said(result)


def test_it_reranks_by_its_own_tokens(model: Path) -> None:
    line = {
        "query": "the dog",
        "candidates": [{"id": "a", "text": "red"}, {"id": "b", "text": "the dog runs"}],
    }
    result = run("rerank", "--maxsim", "--model", model, stdin=json.dumps(line) + "\n")
    assert result.exit_code == 0, result.output
    (reply,) = map(json.loads, result.stdout.splitlines())
    encoder = MultiVectorEncoder.load(model)
    asked = encoder.encode_queries(["the dog"]).vectors
    texts = {each["id"]: encoder.encode_documents([each["text"]]).vectors for each in line["candidates"]}  # type: ignore[index]
    for each in reply["candidates"]:
        wanted = (asked @ texts[each["id"]].T).max(axis=1).mean()
        assert each["rerank_score"] == pytest.approx(float(wanted), abs=1e-5)
    result = run("rerank", "--model", model, stdin=json.dumps(line) + "\n")
    assert result.exit_code == 1
    assert "embedkit rerank --maxsim --model FOLDER" in said(result)


def test_info_says_what_kind_it_is_and_how_texts_are_read(model: Path) -> None:
    found = json.loads(run("model", "info", model, "--json").stdout)
    wanted = {
        "kind": "multi-vector",
        "family": "bert",
        "format": "sentence-transformers",
        "query_length": 8,
        "document_length": 20,
        "projection": ["32 -> 16 identity"],
        "dimension": 16,
        "similarity": "maxsim",
        "queries_filled_up": "to 8 tokens, which no others attend to",
        "skiplist": "3 tokens in document texts",
        "token_pooling": 1,
    }
    assert {key: found[key] for key in wanted} == wanted
    assert found["computed_by"].endswith("on cpu, fp32")


def test_the_list_names_its_kind(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "models--owner--colbert" / "snapshots" / "1"
    place.parent.mkdir(parents=True)
    place.symlink_to(model)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    rows = [json.loads(line) for line in run("model", "list", "--json").stdout.splitlines()]
    (found,) = (row for row in rows if row["name"] == "owner/colbert")
    assert (found["kind"], found["family"]) == ("multi-vector", "bert")
