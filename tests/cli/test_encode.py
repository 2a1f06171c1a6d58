"""`embedkit encode`: files and pipes in, vectors and a summary out."""

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
from embedkit.data.records import Document
from embedkit.encoding.embedder import Embedder
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.job import EncodeOptions, encode_stream, encode_to_file
from embedkit.errors import CheckpointError, OutputError, RecordError
from embedkit.model.config import SentenceConfig
from embedkit.model.learned_parts import SimilarityConfig
from tests.cli.index.test_index import invoke
from tests.tiny import write_tiny_model

TEXTS = ["the dog runs", "", "cat " * 40, "the dog runs", "a red horse"]
Run = Any  # click's result, whose module is not to be imported


FIELDS = SentenceConfig(
    normalize=True, similarity=SimilarityConfig(kind="fields", fields=("title", "text", "keywords"))
)


def encode(*arguments: object, stdin: str | None = None) -> Run:
    return CliRunner().invoke(app, ["encode", *map(str, arguments)], input=stdin)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = ({"_id": f"d{i}", "text": text} for i, text in enumerate(TEXTS))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_file_becomes_vectors_with_ids_and_a_summary(
    corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "v.npy"
    result = encode(corpus, "--model", tiny_model, "-o", output)
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    expected = Encoder.load(tiny_model).encode(TEXTS, on_truncate="ok")
    np.testing.assert_allclose(np.load(output), expected, rtol=0, atol=1e-6)
    assert (tmp_path / "v.ids.txt").read_text(encoding="utf-8").split() == ["d0", "d1", "d2", "d3", "d4"]
    summary, *notes = result.stderr.splitlines()
    assert summary.startswith("5 texts, 44 tokens in ")
    assert summary.endswith(f"-> {output} (5 × 32), model {tiny_model}")
    assert notes == [
        f"warning: 1 text cut to the 32 tokens that the model reads; the first is {corpus}:3. "
        "Average all pieces with --on-truncate chunk",
        f"warning: 1 text empty or without tokens for this model; the first is {corpus}:2",
        "note: 1 text stood earlier already",
    ]


@pytest.mark.gpu
def test_a_gpu_is_taken_where_it_is_asked_for(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = encode(corpus, "-m", tiny_model, "-o", tmp_path / "v.npy", "--device", "cuda", "--json")
    summary = json.loads(result.stdout)
    assert (summary["backend"], summary["device"]) == ("torch", "cuda")
    expected = Encoder.load(tiny_model, device="cpu").encode(TEXTS, on_truncate="ok")
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, rtol=0, atol=1e-5)


def test_the_summary_as_json_counts_everything(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = encode(corpus, "-m", tiny_model, "-o", tmp_path / "v.npy", "--json")
    summary = json.loads(result.stdout)
    speeds = [summary.pop(name) for name in ("seconds", "tokens_per_second", "texts_per_second")]
    assert min(speeds) > 0
    how = {name: summary.pop(name) for name in ("backend", "device", "precision")}
    assert how == {"backend": "torch", "device": "cpu", "precision": "fp32"}
    assert summary.pop("backend_reason").startswith("not native: ")  # heads of 8, or no kernels here
    assert summary == {
        "output": str(tmp_path / "v.npy"),
        "model": str(tiny_model),
        "dimension": 32,
        "texts": 5,
        "tokens": 44,
        "truncated": 1,
        "empty": 1,
        "unknown": 0,
        "duplicates": 1,
        "nonfinite": 0,
        "resumed_at": 0,
    }


def test_a_pipe_becomes_json_lines_on_standard_output(tiny_model: Path) -> None:
    result = encode("-", "-m", tiny_model, stdin="the dog runs\na red horse\n")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["id"] for row in rows] == ["stdin:1", "stdin:2"]
    expected = Encoder.load(tiny_model).encode(["the dog runs", "a red horse"])
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, rtol=0, atol=1e-6)
    assert result.stderr.startswith("2 texts, 10 tokens")
    assert encode("-", "-m", tiny_model, "--quiet", stdin="dog\n").stderr == ""


def test_options_reach_the_reader_and_the_encoder(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "m", prompts={"query": "which dog: "})
    table = tmp_path / "table.data"
    table.write_text("key,words\nk1,the dog\n", encoding="utf-8")
    how = [
        "--format",
        "csv",
        "--text-field",
        "words",
        "--id-field",
        "key",
        "-m",
        model,
        "--truncate-dim",
        "4",
    ]
    row = json.loads(encode(table, *how, "--prompt-name", "query").stdout)
    assert row["id"] == "k1"
    expected = Encoder.load(model, truncate_dim=4).encode(["the dog"], prompt="which dog: ")[0]
    np.testing.assert_allclose(row["embedding"], expected, rtol=0, atol=1e-6)
    assert json.loads(encode(table, *how, "--prompt", "which dog: ").stdout) == row
    assert json.loads(encode(table, *how).stdout) != row


def test_the_model_may_come_from_the_environment(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDKIT_MODEL", str(tiny_model))
    assert encode("-", stdin="dog\n").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--on-truncate", "error"], RecordError, r"corpus\.jsonl:3: the text 'cat .*' has 42 tokens"),
        (["--on-empty", "error"], RecordError, r"corpus\.jsonl:2: the text is empty"),
        (["--text-field", "body"], RecordError, r"corpus\.jsonl:1: missing key 'body'; keys here: _id, text"),
        (["--max-line-bytes", "50"], RecordError, r"corpus\.jsonl:3: the line is longer than 50 bytes"),
        (["--prompt-name", "query"], CheckpointError, "no prompt named 'query'; it has: none"),
        (["--max-seq-length", "65"], CheckpointError, "the position table ends at 64 tokens"),
        (["--truncate-dim", "33"], CheckpointError, "its vectors have 32 dimensions"),
        (["-o", "v.txt"], OutputError, "the ending is '.txt'"),
    ],
)
def test_refusals_leave_nothing_under_the_final_name(
    arguments: list[str], error: type[Exception], message: str, corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    result = encode(corpus, "-m", tiny_model, "-o", tmp_path / "v.npy", *arguments)
    with pytest.raises(error, match=message):
        raise result.exception
    assert not (tmp_path / "v.npy").exists()
    assert not (tmp_path / "v.ids.txt").exists()


def test_an_output_that_exists_is_refused_before_the_model_is_looked_at(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "v.npy").write_bytes(b"mine")
    result = encode(corpus, "-m", "no-such-model", "-o", tmp_path / "v.npy")
    assert "v.npy: already exists" in str(result.exception)
    assert (tmp_path / "v.npy").read_bytes() == b"mine"


def test_chunks_are_no_cuts(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = encode(corpus, "-m", tiny_model, "-o", tmp_path / "v.jsonl", "--on-truncate", "chunk", "--json")
    assert json.loads(result.stdout)["truncated"] == 0
    assert len((tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()) == 5


def test_a_table_without_a_header_and_with_signs_of_its_own_is_read(tiny_model: Path, tmp_path: Path) -> None:
    path, output = tmp_path / "t.csv", tmp_path / "v.npy"
    path.write_text("a^the dog, runs\nb^a red horse\n", encoding="utf-8")
    result = encode(path, "--model", tiny_model, "-o", output, "--no-header", "--delimiter", "^")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "v.ids.txt").read_text(encoding="utf-8").split() == ["a", "b"]
    expected = Encoder.load(tiny_model).encode(["the dog, runs", "a red horse"])
    np.testing.assert_allclose(np.load(output), expected, rtol=0, atol=1e-6)
    refused = encode(path, "--model", tiny_model, "-o", output, "--delimiter", "ab")
    assert refused.exit_code == 2
    assert "delimiter is 'ab'; it must be one sign, or tab" in refused.stderr


def test_every_text_has_its_row_and_an_index_holds_the_same_vectors_without_the_blank_ones(
    tiny_model: Path, tmp_path: Path
) -> None:
    corpus, output, index = tmp_path / "c.jsonl", tmp_path / "c.npy", tmp_path / "c.index"
    texts = [" the dog runs\n", "   ", "a girl", "", "\u00a0"]
    rows = [json.dumps({"_id": f"d{number}", "text": text}) for number, text in enumerate(texts)]
    corpus.write_text("\n".join(rows), encoding="utf-8")
    result = encode(corpus, "--model", tiny_model, "-o", output, "--json")
    assert (json.loads(result.stdout)["texts"], json.loads(result.stdout)["empty"]) == (5, 3)
    vectors = np.load(output)
    np.testing.assert_array_equal(vectors[1], vectors[3])
    np.testing.assert_array_equal(vectors[1], vectors[4])
    built = invoke("index", "build", corpus, "--model", tiny_model, "--index", index, "--json")
    assert json.loads(built)["empty"] == 3
    invoke("index", "export", index, "-o", tmp_path / "i.npy")
    assert (tmp_path / "i.ids.txt").read_text(encoding="utf-8").split() == ["d0", "d2"]
    np.testing.assert_allclose(np.load(tmp_path / "i.npy"), vectors[[0, 2]], atol=1e-6)


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    path = tmp_path / "papers.jsonl"
    rows: list[dict[str, Any]] = [
        {"_id": "a", "title": "the dog", "text": "runs on the beach", "keywords": ["red", "horse"]},
        {"_id": "b", "title": "", "text": "a cat " * 40},
        {"_id": "c", "title": "the girl", "text": None, "keywords": " "},
        {"_id": "d", "text": "", "year": 2019},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_model_with_fields_encodes_documents_and_queries_each_in_its_way(
    papers: Path, tmp_path: Path
) -> None:
    model = write_tiny_model(
        tmp_path / "fields", sentence=FIELDS, prompts={"query": "girl ", "document": "the "}
    )
    output = tmp_path / "papers.npy"
    result = encode(papers, "--model", model, "--role", "document", "-o", output)
    assert result.exit_code == 0, result.output
    assert "(4 × 96), model" in result.stderr
    assert f"1 text cut to the 32 tokens that the model reads; the first is {papers}:2" in result.stderr
    assert f"1 text empty or without tokens for this model; the first is {papers}:4" in result.stderr
    encoder = Encoder.load(model)
    documents: list[dict[str, str | None]] = [
        {"title": "the dog", "text": "runs on the beach", "keywords": "red, horse"},
        {"text": "a cat " * 40},
        {"title": "the girl", "text": ""},
    ]
    vectors = np.load(output)
    np.testing.assert_allclose(vectors[:3], encoder.encode_documents(documents), rtol=0, atol=1e-6)
    lengths = np.linalg.norm(vectors.reshape(4, 3, 32), axis=2)
    np.testing.assert_allclose(lengths, [[1, 1, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]], atol=1e-6)
    result = encode("-", "--model", model, "--role", "query", stdin="a red horse\n")
    (row,) = map(json.loads, result.stdout.splitlines())
    found = np.array(row["embedding"], np.float32)
    np.testing.assert_allclose(found, encoder.encode_queries(["a red horse"])[0], rtol=0, atol=1e-6)
    assert encoder.similarity(found[None], vectors)[0, 3] == 0


def test_a_role_puts_the_models_prompt_before_texts(corpus: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "prompts", prompts={"query": "girl ", "document": "the "})
    output = tmp_path / "v.npy"
    assert encode(corpus, "--model", model, "--role", "query", "-o", output).exit_code == 0
    np.testing.assert_allclose(np.load(output), Encoder.load(model).encode_queries(TEXTS), rtol=0, atol=1e-6)


def test_a_model_with_fields_asks_for_the_role(papers: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "fields", sentence=FIELDS)
    output = tmp_path / "papers.npy"
    for to in ([], ["-o", output]):
        result = encode(papers, "--model", model, *to)
        assert isinstance(result.exception, CheckpointError)
        assert "documents that have the fields title, text, keywords" in str(result.exception)
    assert not output.exists()
    result = encode(papers, "--model", model, "--role", "document", "--prompt", "x")
    assert result.exit_code == 2


def test_documents_that_a_model_with_fields_cannot_take_are_named(tmp_path: Path) -> None:
    encoder = Encoder.load(write_tiny_model(tmp_path / "fields", sentence=FIELDS))
    settings = EncodeOptions(role="document", fail_on_empty=True)
    empty = Document("a", " ", source="papers.jsonl", line=4)
    with pytest.raises(RecordError, match=r"papers\.jsonl:4: the text is empty"):
        list(encode_stream(encoder, [empty], settings))
    odd = Document("b", "a", metadata={"keywords": {"en": "b"}}, source="papers.jsonl", line=1)
    with pytest.raises(RecordError, match=r"papers\.jsonl:1: field 'keywords' is .*; it must be a text"):
        list(encode_stream(encoder, [odd], settings))


def test_a_job_on_fields_goes_on_and_sees_a_field_that_changed(papers: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "fields", sentence=FIELDS)
    encoder, settings = Encoder.load(model), EncodeOptions(role="document")
    whole, output = tmp_path / "whole.npy", tmp_path / "v.npy"
    list(encode_to_file(encoder, read_documents([str(papers)]), whole, settings))
    list(islice(encode_to_file(encoder, read_documents([str(papers)]), output, settings), 2))
    *_, last = encode_to_file(encoder, read_documents([str(papers)]), output, settings)
    assert (last.texts, last.resumed_at) == (4, 4)
    assert output.read_bytes() == whole.read_bytes()
    again = tmp_path / "again.npy"
    list(islice(encode_to_file(encoder, read_documents([str(papers)]), again, settings), 2))
    papers.write_text(papers.read_text(encoding="utf-8").replace("horse", "house"), encoding="utf-8")
    with pytest.raises(OutputError, match="texts"):
        list(encode_to_file(encoder, read_documents([str(papers)]), again, settings))


def test_documents_in_python_that_make_no_sense(tmp_path: Path) -> None:
    encoder = Encoder.load(write_tiny_model(tmp_path / "fields", sentence=FIELDS))
    assert encoder.encode_documents([]).shape == (0, 96)
    with pytest.raises(
        RecordError, match="document 1: the document has none of the fields title, text, keywords"
    ):
        encoder.encode_documents([{"text": "a"}, {"text": " "}])
    with pytest.raises(
        RecordError, match="document 0: the document has 'abstract', which is none of the fields"
    ):
        encoder.encode_documents([{"abstract": "a"}])
    with pytest.raises(TypeError, match="document 0 is str; this model's documents are mappings"):
        encoder.encode_documents(["a"])
    with pytest.raises(CheckpointError, match="here documents are single texts"):
        Embedder(encoder, "document")
    with pytest.raises(CheckpointError, match="truncate_dim"):
        Encoder.load(encoder.folder.path, truncate_dim=8)
