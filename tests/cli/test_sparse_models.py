"""Learned sparse models on the command line: encode, index, search, explain, what is told of them, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.data.reading import read_documents
from embedkit.encoding import windows
from embedkit.encoding.job import EncodeOptions, EncodeProgress, encode_to_file
from embedkit.encoding.sparse import SparseEncoder
from embedkit.encoding.sparse_files import read_sparse
from tests.checkpoint.test_sparse import write_tiny_sparse
from tests.tiny import write_tiny_model

TEXTS = ["the dog runs on the beach", "a small red horse", "the boy sings an old song", "a green ball"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sparse(tmp_path_factory.mktemp("sparse") / "model", weigh_queries=True, heads=2)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("dense") / "model")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    rows = [{"_id": f"d{number}", "text": text} for number, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(*words: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr + str(result.exception)


def test_encode_writes_terms_with_weights(model: Path, corpus: Path, tmp_path: Path) -> None:
    out, _ = run("encode", corpus, "-m", model, "--role", "query")
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[1] == {"id": "d1", "terms": {"a": 1.0, "horse": 1.0, "red": 1.0, "small": 1.0}}
    out, _ = run(
        "encode",
        corpus,
        "-m",
        model,
        "--role",
        "document",
        "-o",
        tmp_path / "v.npz",
        "--max-active-dims",
        7,
        "--json",
    )
    assert json.loads(out)["terms_per_text"] == 7
    found = read_sparse(tmp_path / "v.npz")
    assert found.counts.tolist() == [7] * 4
    assert (tmp_path / "v.ids.txt").read_text(encoding="utf-8").split() == ["d0", "d1", "d2", "d3"]
    run(
        "encode",
        corpus,
        "-m",
        model,
        "--role",
        "document",
        "-o",
        tmp_path / "v.jsonl",
        "--max-active-dims",
        7,
    )
    lines = (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()
    np.testing.assert_allclose(
        sorted(json.loads(lines[2])["terms"].values()), sorted(found.row(2)[1].tolist()), rtol=1e-6
    )
    _, error = run("encode", corpus, "-m", model, "--role", "document", "-o", tmp_path / "v.npz", code=1)
    assert "already exists" in error


@pytest.mark.parametrize("ending", [".npz", ".jsonl"])
def test_what_stopped_goes_on_with_the_same_bits(
    ending: str, model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 3)
    encoder = SparseEncoder.load(model)

    def job(name: str) -> Iterator[EncodeProgress]:
        documents = read_documents([str(corpus)])
        return encode_to_file(encoder, documents, tmp_path / name, EncodeOptions(role="document"))

    *_, last = job(f"whole{ending}")
    list(islice(job(f"parts{ending}"), 2))
    assert (tmp_path / f"parts{ending}.partial").is_dir()
    *_, resumed = job(f"parts{ending}")
    assert (resumed.resumed_at, resumed.texts, resumed.terms) == (3, 4, last.terms)
    expected = encoder.encode_documents(TEXTS)
    if ending == ".jsonl":
        whole, parts = ((tmp_path / name).read_bytes() for name in ("whole.jsonl", "parts.jsonl"))
        assert whole == parts
        rows = [json.loads(line)["terms"] for line in parts.splitlines()]
        assert rows == encoder.describe(expected)
        return
    found = read_sparse(tmp_path / "parts.npz")
    np.testing.assert_array_equal(found.starts, expected.starts)
    np.testing.assert_array_equal(found.terms, expected.terms)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-6)
    for name in ("whole", "parts"):
        assert (tmp_path / f"{name}.ids.txt").read_text(encoding="utf-8") == "d0\nd1\nd2\nd3\n"
    np.testing.assert_array_equal(read_sparse(tmp_path / "whole.npz").weights, found.weights)


def test_scipy_reads_the_matrix(model: Path, corpus: Path, tmp_path: Path) -> None:
    scipy_sparse = pytest.importorskip("scipy.sparse")
    run("encode", corpus, "-m", model, "--role", "query", "-o", tmp_path / "v.npz")
    found = scipy_sparse.load_npz(tmp_path / "v.npz")
    expected = SparseEncoder.load(model).encode_queries(TEXTS).to_dense()
    np.testing.assert_array_equal(found.toarray(), expected)


def test_a_job_with_other_terms_or_ids_in_the_way_is_refused(
    model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 3)
    documents, output = read_documents([str(corpus)]), tmp_path / "v.npz"
    begun = encode_to_file(SparseEncoder.load(model), documents, output, EncodeOptions(role="document"))
    list(islice(begun, 2))
    how = ("--role", "document", "-o", output)
    _, error = run("encode", corpus, "-m", model, *how, "--max-active-dims", 7, code=1)
    assert "begun with encoder.max_active_dims = None; now it is 7" in error
    (tmp_path / "w.ids.txt").write_text("mine\n", encoding="utf-8")
    how = ("--role", "document", "-o", tmp_path / "w.npz")
    _, error = run("encode", corpus, "-m", model, *how, code=1)
    assert "w.ids.txt: already exists" in error


def test_an_index_is_built_searched_and_fused_with_others(
    model: Path, dense: Path, corpus: Path, tmp_path: Path
) -> None:
    sparse, vectors = tmp_path / "sparse.index", tmp_path / "dense.index"
    out, _ = run("index", "build", corpus, "-i", sparse, "-m", model, "--json")
    assert json.loads(out)["vectors"] == 4
    run("index", "build", corpus, "-i", vectors, "-m", dense)
    hits = [
        json.loads(line)
        for line in run("search", sparse, "red horse", "--mode", "dense", "--json")[0].splitlines()
    ]
    assert hits[0]["scores"].keys() == {"sparse"}
    both = [
        json.loads(line)
        for line in run("search", sparse, "red horse", "--mode", "hybrid", "--json")[0].splitlines()
    ]
    assert both[0]["id"] == "d1"
    assert both[0]["scores"].keys() == {"sparse", "text"}
    three = run("search", vectors, "red horse", "--with", sparse, "--mode", "hybrid", "--json")[0]
    by_id = {hit["id"]: hit for hit in map(json.loads, three.splitlines())}
    assert by_id["d1"]["scores"].keys() == {"dense", "text", "sparse"}
    stats = json.loads(run("index", "stats", sparse, "--json")[0])
    assert (stats["format_version"], stats["settings"]["kind"]) == (4, "sparse")
    assert json.loads(run("index", "build", corpus, "-i", sparse, "--json")[0])["unchanged"] == 4


def test_explain_shows_what_each_term_adds(model: Path, corpus: Path) -> None:
    out, _ = run("explain", "the red dog", TEXTS[0], "-m", model, "--json")
    found = json.loads(out)
    assert found["score"] == pytest.approx(sum(each["product"] for each in found["shared"]))
    own = {each["term"]: each["in_text"] for each in found["document"]}
    assert own["dog"]
    assert not all(own.values())  # the text was expanded
    _, error = run("explain", "the dog", TEXTS[0], "-m", model, "--attention", code=2)
    assert "--attention does not go with a learned sparse model" in error


def test_info_says_what_it_is(model: Path) -> None:
    found = json.loads(run("model", "info", model, "--json")[0])
    assert (found["kind"], found["family"], found["dimension"]) == ("sparse", "bert", 207)
    assert found["term_weights"] == {"query": "of tokens", "document": "max of relu"}
    assert "cpu" in found["computed_by"]


def test_a_list_names_it(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--me--splade" / "snapshots" / "1"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(model)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    rows = [json.loads(line) for line in run("model", "list", "--json")[0].splitlines()]
    assert next(row for row in rows if row["name"] == "me/splade")["kind"] == "sparse"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("encode", "CORPUS", "-m", "SPARSE"), "--role query or --role document"),
        (
            ("encode", "CORPUS", "-m", "SPARSE", "--role", "query", "--truncate-dim", 4),
            "--truncate-dim does not go with",
        ),
        (
            ("encode", "CORPUS", "-m", "DENSE", "--max-active-dims", 4),
            "--max-active-dims goes with a learned sparse model",
        ),
    ],
)
def test_options_that_do_not_apply_are_refused(
    words: tuple[object, ...], message: str, model: Path, dense: Path, corpus: Path
) -> None:
    places = {"CORPUS": corpus, "SPARSE": model, "DENSE": dense}
    _, error = run(*(places.get(str(word), word) for word in words), code=2)
    assert message in error


def test_an_index_in_shards_is_searched_and_merged(model: Path, corpus: Path, tmp_path: Path) -> None:
    cut, one = tmp_path / "cut.index", tmp_path / "one.index"
    said, _ = run(
        "index", "build", corpus, "-i", cut, "-m", model, "--shards", 2, "--precision", "fp32", "--json"
    )
    built = json.loads(said)
    run("index", "merge", one, cut)
    of_shards, hits = (
        [
            json.loads(line)
            for line in run("search", path, "dog", "--mode", "dense", "--json", "-k", 5)[0].splitlines()
        ]
        for path in (cut, one)
    )
    assert {each.pop("coverage") for each in of_shards} == {"2/2"}
    assert of_shards == hits
    assert len(hits) == min(5, built["documents"])
    assert set(hits[0]["scores"]) == {"sparse"}


def test_kinds_are_not_mixed(model: Path, dense: Path, corpus: Path, tmp_path: Path) -> None:
    sparse, vectors = tmp_path / "sparse.index", tmp_path / "dense.index"
    run("index", "build", corpus, "-i", sparse, "-m", model)
    run("index", "build", corpus, "-i", vectors, "-m", dense)
    for words, message in (
        (("search", sparse, "dog", "-m", dense), "was built by a learned sparse model"),
        (("search", vectors, "dog", "-m", model), "was built by a model with one vector a text"),
        (
            ("index", "build", corpus, "-i", vectors, "-m", model),
            "was built by a model with one vector a text",
        ),
        (
            ("index", "build", corpus, "-i", tmp_path / "new", "-m", model, "--kind", "hnsw"),
            "is a sparse index",
        ),
        (
            ("index", "build", corpus, "-i", tmp_path / "new", "-m", model, "--merge-tokens", 0.1),
            "tokens are not merged",
        ),
        (
            ("index", "build", corpus, "-i", tmp_path / "new", "-m", model, "--shards", 2, "--kind", "hnsw"),
            "is a sparse index",
        ),
        (("index", "tune", sparse), "is a sparse index"),
        (
            ("index", "push", sparse, "postgresql://nobody@nowhere.invalid/none?table=t"),
            "is a sparse index; a store takes one vector a passage",
        ),
        (("index", "export", sparse, "--format", "npy", "-o", tmp_path / "v.npy"), "is a sparse index"),
        (("search", sparse, "dog", "--rerank", "maxsim"), "is a sparse index"),
        (("pairs", corpus, "-m", model), "here a dense model is wanted"),
    ):
        _, error = run(*words, code=1)
        assert message in error, words
    _, error = run(
        "index", "build", corpus, "-i", tmp_path / "new", "-m", model, "--storage", "float16", code=2
    )
    assert "a sparse index keeps weights in 8 bits" in error
