"""Indexes of multi-vector models from the command line: built, added to, searched, measured, and what does not apply refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.checkpoint.multi_vector_modules import QueryExpansion
from embedkit.data.vectors import ids_path
from tests.tiny_multi_vector import write_tiny_multi_vector

WORDS = ["guitar", "beach", "dog", "cat", "horse", "girl", "man", "runs", "sleeps", "walks"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tokens"
    # Room for a whole sentence as a query, by which a random model finds that sentence.
    return write_tiny_multi_vector(folder, expansion=QueryExpansion(length=16))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = [{"_id": f"d{n}", "title": "", "text": " ".join(rng.choice(WORDS, 6)), "n": n} for n in range(60)]
    rows[0]["text"] = "a girl plays the guitar on the beach"
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "girl plays the guitar"}) + "\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
    return folder / "corpus.jsonl"


def invoke(*arguments: object, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == exit_code, (result.output, result.exception)
    return f"{result.output}{result.exception or ''}"  # which `run` would print


def hits(*arguments: object) -> list[dict[str, object]]:
    return [json.loads(line) for line in invoke("search", *arguments, "--json", "-q").splitlines()]


@pytest.fixture
def index(tmp_path: Path, model: Path, corpus: Path) -> Path:
    path = tmp_path / "my.index"
    invoke("index", "build", corpus, "--index", path, "--model", model)
    return path


def test_it_is_built_searched_changed_and_checked_as_every_index(
    tmp_path: Path, index: Path, corpus: Path
) -> None:
    assert "60 unchanged" in invoke("index", "build", corpus, "--index", index)
    held = json.loads(invoke("index", "stats", index, "--json"))
    assert (held["settings"]["kind"], held["settings"]["storage"], held["kind"]) == (
        "multi-vector",
        "2-bit",
        "lists",
    )
    assert (held["vectors"], held["format_version"]) == (60, 4)
    assert held["settings"]["cutting"]["chunk_tokens"] == 17  # 20, but for special tokens and the marker
    for mode in ("dense", "text", "hybrid"):
        assert hits(index, "a girl plays the guitar on the beach", "--mode", mode)[0]["id"] == "d0"
    assert [hit["id"] for hit in hits(index, "girl", "--where", "n = 7")] == ["d7"]
    more = tmp_path / "more.jsonl"
    more.write_text(
        json.dumps({"id": "new", "text": "the horse sleeps on the beach while the cat runs"}) + "\n"
    )
    assert "1 added" in invoke("index", "add", more, "--index", index)
    assert hits(index, "horse sleeps on the beach while the cat runs")[0]["id"] == "new"
    assert "recall@10" in invoke("index", "tune", index, "--num-queries", 10)
    invoke("index", "delete", index, "new")
    invoke("index", "compact", index)
    assert "no damage" in invoke("index", "verify", index)
    assert "text index" in invoke("index", "repair", index)
    assert hits(index, "  ") == []


def test_four_bits_and_exact_search_can_be_had(tmp_path: Path, model: Path, corpus: Path) -> None:
    path = tmp_path / "exact.index"
    invoke(
        "index", "build", corpus, "--index", path, "--model", model, "--storage", "4-bit", "--kind", "flat"
    )
    held = json.loads(invoke("index", "stats", path, "--json"))
    assert (held["settings"]["storage"], held["kind"]) == ("4-bit", "flat")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--storage", "int8"],
            "--storage int8 is for one vector a text; token vectors are kept as 2-bit or 4-bit",
        ),
        (["--metric", "l2"], "--metric l2: token vectors are compared by cosine"),
        (["--kind", "hnsw"], "is a multi-vector index; hnsw takes one vector a passage"),
        (["--merge-tokens", "0.2"], "for which --merge-tokens means nothing"),
        (["--shards", "2", "--kind", "hnsw"], "is a multi-vector index; hnsw takes one vector a passage"),
        (["--shards", "2", "--storage", "int8"], "token vectors are kept as 2-bit or 4-bit"),
    ],
)
def test_options_that_do_not_apply_are_refused_by_name(
    tmp_path: Path, model: Path, corpus: Path, options: list[str], message: str
) -> None:
    path = tmp_path / "other.index"
    result = CliRunner().invoke(
        app, ["index", "build", str(corpus), "--index", str(path), "--model", str(model), *options]
    )
    assert result.exit_code in (1, 2)
    assert message in " ".join(f"{result.output}{result.exception}".replace("│", " ").split())
    assert not (path / "index.sqlite").exists()


def test_what_takes_one_vector_a_passage_is_refused(
    tmp_path: Path, index: Path, model: Path, corpus: Path, tiny_model: Path
) -> None:
    commands: list[tuple[object, ...]] = [
        ("index", "export", index, "--output", tmp_path / "x.npy"),
        ("index", "export", index, "--output", tmp_path / "x.parquet"),
        ("pairs", "--index", index),
        ("index", "push", index, f"lance://{tmp_path}/store?table=docs"),  # before the store is opened
    ]
    for command in commands:
        assert "is a multi-vector index" in " ".join(invoke(*command, exit_code=1).split())
    said = invoke("search", index, "girl", "--rerank", "maxsim", exit_code=1)
    assert "its search is by maxsim already" in " ".join(said.split())
    said = invoke("search", index, "girl", "--model", tiny_model, exit_code=1)
    assert "was built by a multi-vector model" in said
    dense = tmp_path / "dense.index"
    invoke("index", "build", corpus, "--index", dense, "--model", tiny_model)
    commands = [
        ("search", dense, "girl", "--model", model),
        ("index", "add", corpus, "--index", dense, "--model", model),
    ]
    for command in commands:
        said = " ".join(invoke(*command, exit_code=1).split())
        assert "was built by a model with one vector a text" in said
    np.save(tmp_path / "ready.npy", np.ones((1, 16), np.float32))
    ids_path(tmp_path / "ready.npy").write_text("a\n")
    ready = ("--vectors", tmp_path / "ready.npy", "--ids", ids_path(tmp_path / "ready.npy"))
    invoke("index", "add", *ready, "--index", index, exit_code=1)
    said = invoke(
        "index", "build", *ready, "--index", tmp_path / "r.index", "--storage", "2-bit", exit_code=2
    )
    assert "storage is '2-bit'" in " ".join(said.replace("│", " ").split())


def test_it_is_measured_beside_words(tmp_path: Path, index: Path, model: Path, corpus: Path) -> None:
    cache = ("--cache-dir", tmp_path / "cache", "--json")
    for options in (("--model", model), ("--index", index)):
        said = invoke("evaluate", "retrieval", corpus.parent, *options, *cache, "-q")
        systems = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        assert len(systems) == 2
    said = invoke(
        "evaluate", "retrieval", corpus.parent, "--model", model, "--rerank", "maxsim", *cache, exit_code=1
    )
    assert "for which --rerank maxsim means nothing" in " ".join(said.split())
