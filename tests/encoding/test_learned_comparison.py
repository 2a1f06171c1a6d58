"""Models with a learned similarity: a bilinear one is searched by, through the queries' vectors; an additive one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.encoding.embedder import Embedder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, TrainingError
from embedkit.explaining.explain import explain
from embedkit.pipelines.mining import MiningModels
from embedkit.training.distillation.recipe import StudentRecipe
from embedkit.training.distillation.student import make_student
from embedkit.types import Computing
from tests.model.test_learned_heads import HEADS
from tests.tiny import VARIANT_SHAPES, tiny_config, write_tiny_model

QUERIES = ["the girl plays", "a red ball"]
DOCUMENTS = ["the girl plays the guitar", "a dog", "he reads a large book", "water and sand on the beach"]
ROUNDING = 2e-6


@pytest.fixture(scope="module")
def bilinear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "bilinear"
    return write_tiny_model(folder, sentence=HEADS["bilinear"])


@pytest.fixture(scope="module")
def additive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "additive"
    return write_tiny_model(folder, sentence=HEADS["additive"])


@pytest.mark.parametrize("kind", ["bilinear", "additive"])
def test_similarities_are_those_of_the_model_that_was_trained(
    kind: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    encoder = Encoder.load(folder, device="cpu")
    model = load_sentence_encoder(read_model_folder(folder))
    assert model.similarity is not None
    queries, documents = encoder.encode_queries(QUERIES), encoder.encode_documents(DOCUMENTS)
    with torch.inference_mode():
        plain = (torch.from_numpy(encoder.encode(texts)) for texts in (QUERIES, DOCUMENTS))
        expected = model.similarity(*plain).numpy()
    np.testing.assert_allclose(encoder.similarity(queries, documents), expected, rtol=0, atol=ROUNDING)
    one = encoder.encode_query(QUERIES[0])
    assert one.shape == (32,)
    np.testing.assert_allclose(encoder.similarity(one, documents)[0], expected[0], rtol=0, atol=ROUNDING)
    if kind == "bilinear":  # the fold: an index multiplies, and has the similarity
        np.testing.assert_allclose(queries @ documents.T, expected, rtol=0, atol=ROUNDING)
        assert np.abs(encoder.encode(QUERIES) - queries).max() > 0.01


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.exception
    return result.stdout


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_an_index_finds_by_a_bilinear_similarity(metric: str, bilinear: Path, tmp_path: Path) -> None:
    """By dot products the scores are the similarity; by cosines the order of a query's documents is the same."""
    corpus = tmp_path / "corpus.jsonl"
    lines = (json.dumps({"id": str(number), "text": text}) for number, text in enumerate(DOCUMENTS))
    corpus.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    index = tmp_path / "index"
    run("index", "build", corpus, "--index", index, "--model", bilinear, "--metric", metric, "--quiet")
    encoder = Encoder.load(bilinear, device="cpu")
    expected = encoder.similarity(encoder.encode_queries(QUERIES), encoder.encode_documents(DOCUMENTS))
    for query, scores in zip(QUERIES, expected, strict=True):
        found = run("search", index, query, "--mode", "dense", "--top-k", 4, "--json").splitlines()
        hits = [json.loads(line) for line in found]
        assert [hit["id"] for hit in hits] == [str(n) for n in np.argsort(-scores)]
        if metric == "dot":
            np.testing.assert_allclose([hit["score"] for hit in hits], sorted(scores)[::-1], atol=1e-5)


def test_what_searches_by_products_refuses_an_additive_similarity(additive: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(additive, device="cpu")
    message = r"its similarity is additive, s·tanh\(Wq \+ Ud\), which is no product of two vectors"
    for role in ("query", "document"):
        with pytest.raises(CheckpointError, match=message):
            Embedder(encoder, role)
    with pytest.raises(CheckpointError, match=message):
        MiningModels("dense", Computing(device="cpu"), model=str(additive), rerank=None)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a dog\n", encoding="utf-8")
    arguments = ["index", "build", corpus, "--index", tmp_path / "index", "--model", additive, "--quiet"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, CheckpointError)
    assert not (tmp_path / "index").exists()
    run("encode", corpus, "--output", tmp_path / "vectors.npy", "--model", additive, "--quiet")


def test_cut_vectors_have_no_learned_similarity(bilinear: Path, tmp_path: Path) -> None:
    message = "vectors are to be cut to 8 dimensions; its bilinear similarity compares all 32"
    with pytest.raises(CheckpointError, match=message):
        Encoder.load(bilinear, device="cpu", truncate_dim=8)
    Encoder.load(bilinear, device="cpu", truncate_dim=32)
    folder = write_tiny_model(tmp_path / "cut", sentence=HEADS["bilinear"], truncate_dim=8)
    with pytest.raises(CheckpointError, match=message):
        Encoder.load(folder, device="cpu")


def test_what_explains_cosines_or_weights_says_where_there_are_none(bilinear: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="its similarity is bilinear; what is explained is a cosine"):
        explain(Encoder.load(bilinear, device="cpu", backend="torch"), QUERIES[0], DOCUMENTS[0])
    low = write_tiny_model(tmp_path / "low", config=tiny_config(**VARIANT_SHAPES["low rank"]))
    with pytest.raises(CheckpointError, match="its attention is low-rank and weighs mixtures of tokens"):
        explain(Encoder.load(low, device="cpu"), QUERIES[0], DOCUMENTS[0])
    features = write_tiny_model(tmp_path / "rf", config=tiny_config(**VARIANT_SHAPES["random features"]))
    found = explain(Encoder.load(features, device="cpu"), QUERIES[0], DOCUMENTS[0])
    np.testing.assert_allclose(found.query.attention.sum(axis=-1), 1, rtol=1e-5)


def test_students_keep_a_pooling_by_attention_and_are_not_made_of_what_they_cannot_keep(
    bilinear: Path, tmp_path: Path
) -> None:
    def student(folder: Path) -> object:
        recipe = StudentRecipe(kind="transformer", layers=(0,))
        made = make_student(
            recipe,
            read_model_folder(folder),
            DOCUMENTS,
            axes=None,
            max_length=32,
            seed=0,
            embed=lambda texts: np.zeros((len(texts), 32), np.float32),
        )
        return made.model

    with pytest.raises(
        TrainingError, match="its similarity is bilinear, which a student's vectors alone do not"
    ):
        student(bilinear)
    layers = write_tiny_model(tmp_path / "layers", sentence=HEADS["layers"])
    with pytest.raises(TrainingError, match="the teacher's token vectors are a mean of its layers"):
        student(layers)
    config = tiny_config(**VARIANT_SHAPES["low rank"])
    folder = write_tiny_model(tmp_path / "low", config=config, sentence=HEADS["structured mean"])
    teacher = load_sentence_encoder(read_model_folder(folder))
    made = student(folder)
    ours, theirs = made.state_dict(), teacher.state_dict()  # type: ignore[attr-defined] # a module
    for name in ours:
        if name.startswith("attention_pooling"):
            assert torch.equal(ours[name], theirs[name])
    mixtures = "encoder.layers.0.attention.form.low_rank_keys"
    assert torch.equal(ours[mixtures], theirs[mixtures][:, :32])


def test_a_folder_is_described_with_its_variant(bilinear: Path, tmp_path: Path) -> None:
    info = json.loads(run("model", "info", bilinear, "--json"))
    assert (info["similarity"], info["attention"], info["position"]) == ("bilinear", "dot", "learned")
    config = tiny_config(**VARIANT_SHAPES["additive local"])
    folder = write_tiny_model(tmp_path / "model", config=config, sentence=HEADS["structured concat"])
    info = json.loads(run("model", "info", folder, "--json"))
    assert info["family"] == "embedkit"
    assert info["attention"] == "additive, within 6 tokens but in every 2nd layer"
    assert info["pooling"] == "attention (3 aspects of 6, concat)"
    assert info["dimension"] == 96
