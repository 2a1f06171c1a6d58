"""An index of documents with fields: every search gives exactly the ranking of comparing each document by its fields."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedkit.checkpoint.folder import read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.noise import MAX_CHARACTERS, cosine_noise
from embedkit.errors import CheckpointError, EmbedkitError, IndexFileError
from embedkit.inference.sample import SAMPLE_TEXTS
from embedkit.model.config import SentenceConfig
from embedkit.model.learned_parts import SimilarityConfig
from indexes import Index, Settings
from indexes.types import Storage
from tests.cli.index.test_index import invoke, summary
from tests.tiny import write_tiny_model
from tests.training.contrastive_runs import sentence

FIELDS = ("title", "text", "keywords")
QUERIES = ["the dog runs", "a girl plays the guitar in the beach", "water", "he reads words"]
Row = dict[str, Any]  # Any: JSON values


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with fields whose experts and router are drawn at random, so that weights differ much."""
    folder = write_tiny_model(
        tmp_path_factory.mktemp("fields") / "model",
        sentence=SentenceConfig(normalize=True, similarity=SimilarityConfig(kind="fields", fields=FIELDS)),
        prompts={"query": "girl ", "document": "the "},
    )
    (part,) = read_model_folder(folder).modules.parts.values()
    weights = load_file(folder / part / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        weights[name] = 0.5 * torch.randn(weight.shape, generator=generator)
    save_file(weights, folder / part / "model.safetensors", metadata={"format": "pt"})
    return folder


def rows_of(count: int = 80) -> list[Row]:
    rng = random.Random(0)
    rows = []
    for number in range(count):
        row: Row = {"_id": f"d{number:03}", "title": "", "text": "", "keywords": [], "titled": 0}
        for name in rng.sample(FIELDS, rng.randint(1, 3)):
            row[name] = [sentence(rng)] if name == "keywords" else sentence(rng)
        rows.append(row | {"titled": int(bool(row["title"]))})
    return rows


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "corpus.jsonl", rows_of())


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def build(corpus: Path, model: Path, path: Path, *more: object) -> dict[str, object]:
    return summary("index", "build", corpus, "--index", path, "--model", model, *more)


def found_by(path: Path, query: str, *more: object) -> list[Row]:
    printed = invoke("search", path, query, "--mode", "dense", "--json", *more)
    return [json.loads(line) for line in printed.splitlines()]


def brute_force(model: Path, rows: list[Row], query: str) -> list[tuple[float, str]]:
    encoder = Encoder.load(model, device="cpu")
    documents = [
        {
            name: ", ".join(row[name]) if isinstance(row[name], list) else row[name]
            for name in FIELDS
            if row[name]
        }
        for row in rows
    ]
    scores = encoder.similarity(encoder.encode_queries([query]), encoder.encode_documents(documents))[0]
    return sorted(((float(score), row["_id"]) for score, row in zip(scores, rows, strict=True)), reverse=True)


def test_a_search_gives_exactly_the_ranking_of_comparing_every_document(
    corpus: Path, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my.index"
    report = build(corpus, model, path)
    assert (report["added"], report["vectors"], report["empty"]) == (80, 80, 0)
    patterns = {tuple(bool(row[name]) for name in FIELDS) for row in rows_of()}
    assert len(patterns) == 7  # every way in which fields can be missing
    by_product = 0
    for query in QUERIES:
        expected = brute_force(model, rows_of(), query)
        hits = found_by(path, query, "-k", 80)
        assert [hit["id"] for hit in hits] == [doc_id for _, doc_id in expected]
        np.testing.assert_allclose(
            [hit["score"] for hit in hits], [score for score, _ in expected], atol=2e-6
        )
        few = found_by(path, query, "-k", 5)
        assert [hit["id"] for hit in few] == [doc_id for _, doc_id in expected[:5]]
        encoder = Encoder.load(model, device="cpu")
        with Index.open(path) as index:
            rows = 1 + np.arange(80)
            products = encoder.encode_queries([query])[0] @ index.snapshot.gather(rows).T
            by_product += index.ids_of([int(products.argmax()) + 1])[0] == expected[0][1]
    assert by_product < len(QUERIES)  # one product alone would have found others


def test_a_batch_of_queries_finds_what_each_finds_alone(corpus: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.index"
    build(corpus, model, path)
    encoder = Encoder.load(model, device="cpu")
    with Index.open(path) as index:
        together = index.search(encoder.encode_queries(QUERIES), k=7)
        for query, hits in zip(QUERIES, together, strict=True):
            expected = brute_force(model, rows_of(), query)[:7]
            assert [hit.doc_id for hit in hits] == [doc_id for _, doc_id in expected]
        assert index.score_limit == 1.0
        some = index.search(encoder.encode_queries(QUERIES[:1]), k=80, where="titled = 0")[0]
        without = {row["_id"] for row in rows_of() if not row["title"]}
        expected_ids = [
            doc_id for _, doc_id in brute_force(model, rows_of(), QUERIES[0]) if doc_id in without
        ]
        assert [hit.doc_id for hit in some] == expected_ids


def test_neither_the_kernels_nor_a_device_that_know_products_alone_are_asked(
    corpus: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my.index"
    build(corpus, model, path)
    queries = Encoder.load(model, device="cpu").encode_queries(QUERIES)
    for module in ("exact", "snapshot"):
        monkeypatch.setattr(f"indexes.search.{module}.can_search", lambda: True)
    with Index.open(path, device="cuda") as index:
        for query, hits in zip(QUERIES, index.search(queries, k=9), strict=True):
            expected = brute_force(model, rows_of(), query)[:9]
            assert [hit.doc_id for hit in hits] == [doc_id for _, doc_id in expected]


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_smaller_numbers_change_scores_by_their_rounding_alone(
    storage: Storage, corpus: Path, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my.index"
    build(corpus, model, path, "--storage", storage)
    for query in QUERIES:
        expected = {doc_id: score for score, doc_id in brute_force(model, rows_of(), query)}
        hits = found_by(path, query, "-k", 80)
        found = [hit["score"] for hit in hits]
        np.testing.assert_allclose(found, [expected[hit["id"]] for hit in hits], atol=0.02)
        assert found == sorted(found, reverse=True)


def test_the_same_build_embeds_nothing_and_a_changed_field_is_embedded_again(
    corpus: Path, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my.index"
    build(corpus, model, path)
    assert build(corpus, model, path)["unchanged"] == 80
    rows = rows_of()
    changed = next(number for number, row in enumerate(rows) if row["keywords"])
    rows[changed]["keywords"] = ["the horse sleeps", "song"]
    write(corpus, rows)
    report = build(corpus, model, path)
    assert (report["updated"], report["passages"]) == (1, 1)
    hits = found_by(path, QUERIES[0], "-k", 80)
    expected = brute_force(model, rows, QUERIES[0])
    assert [hit["id"] for hit in hits] == [doc_id for _, doc_id in expected]
    invoke("index", "compact", path)
    invoke("index", "verify", path)
    assert [hit["id"] for hit in found_by(path, QUERIES[0], "-k", 80)] == [doc_id for _, doc_id in expected]


def test_a_document_without_any_field_is_counted_and_not_found(model: Path, tmp_path: Path) -> None:
    rows = rows_of(6)
    rows[2] |= {"title": " ", "text": "", "keywords": [], "year": 2019}
    rows.append({"_id": "bare", "text": ""})
    corpus, path = write(tmp_path / "corpus.jsonl", rows), tmp_path / "my.index"
    report = build(corpus, model, path)
    assert (report["added"], report["empty"], report["vectors"]) == (7, 2, 5)
    assert len(found_by(path, "dog", "-k", 10)) == 5


def test_long_texts_are_cut_into_passages_that_keep_the_other_fields(model: Path, tmp_path: Path) -> None:
    long = " ".join(sentence(random.Random(number)) for number in range(12))
    rows: list[Row] = [{"_id": "long", "title": "a dog", "text": long, "keywords": ["horse"]}]
    corpus, path = write(tmp_path / "corpus.jsonl", rows), tmp_path / "my.index"
    report = build(corpus, model, path)
    assert isinstance(report["vectors"], int)
    assert report["vectors"] > 2
    with Index.open(path) as index:
        parts = index.snapshot.gather(1 + np.arange(report["vectors"])).reshape(report["vectors"], 3, 32)
    np.testing.assert_allclose(parts[1:, [0, 2]], parts[:-1, [0, 2]], atol=1e-6)
    assert np.abs(parts[1:, 1] - parts[:-1, 1]).max() > 1e-3
    (hit,) = found_by(path, "dog", "-k", 5)[:1]
    encoder = Encoder.load(model, device="cpu")
    document = {"title": "a dog", "text": hit["text"], "keywords": "horse"}
    score = encoder.similarity(encoder.encode_queries(["dog"]), encoder.encode_documents([document]))[0, 0]
    assert hit["score"] == pytest.approx(float(score), abs=2e-6)


def test_what_an_index_of_fields_cannot_do_is_refused(corpus: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.index"
    build(corpus, model, path)
    with Index.open(path, writable=True) as index:
        from indexes import build_ann, export_faiss

        with pytest.raises(
            IndexFileError, match="documents have fields, which are compared one by one, and hnsw finds"
        ):
            list(build_ann(index, "hnsw"))
        with pytest.raises(IndexFileError, match="faiss would compare whole vectors"):
            export_faiss(index, tmp_path / "flat.faiss")
    for settings, message in (
        ({"metric": "dot"}, "the metric is dot"),
        ({"storage": "binary"}, "binary storage cannot tell a field that is missing"),
        ({"fields": 5}, "it must divide the dimension"),
    ):
        with pytest.raises(ValueError, match=message):
            Settings(**{"dimension": 96, "fields": 3, **settings})  # type: ignore[arg-type] # a test's words
    invoke(
        "index",
        "build",
        corpus,
        "--index",
        tmp_path / "dot",
        "--model",
        model,
        "--metric",
        "dot",
        exit_code=2,
    )
    assert not (tmp_path / "dot").exists()
    invoke(
        *("index", "build", corpus, "--index", tmp_path / "hnsw", "--model", model, "--kind", "hnsw"),
        exit_code=1,
    )
    assert not (tmp_path / "hnsw").exists()


def test_a_field_that_is_no_text_is_refused_with_its_place(model: Path, tmp_path: Path) -> None:
    rows: list[Row] = [{"_id": "a", "text": "a dog", "keywords": {"en": "dog"}}]
    corpus, path = write(tmp_path / "corpus.jsonl", rows), tmp_path / "my.index"
    with pytest.raises(AssertionError, match=r"field 'keywords' is .*; it must be a text"):
        build(corpus, model, path)
    assert not path.exists()


def test_what_is_no_nearer_than_chance_is_measured_by_fields(
    corpus: Path, model: Path, tmp_path: Path
) -> None:
    """Unrelated texts as queries and as documents with the text in every field, compared as a search does it."""
    encoder = Encoder.load(model, device="cpu")
    texts = [text for text in SAMPLE_TEXTS if len(text) <= MAX_CHARACTERS]
    documents: list[dict[str, str | None]] = [dict.fromkeys(FIELDS, text) for text in texts]
    scores = encoder.similarity(encoder.encode_queries(texts), encoder.encode_documents(documents))
    others = scores[~np.eye(len(texts), dtype=bool)]
    noise = cosine_noise(encoder)
    assert noise.mean == pytest.approx(float(others.mean()), abs=1e-5)
    assert noise.deviation == pytest.approx(float(others.std()), abs=1e-5)
    path = tmp_path / "my.index"
    build(corpus, model, path)
    assert "dog" in invoke("search", path, "dog", "-k", 3)


def test_settings_of_other_indexes_are_as_they_were(model: Path) -> None:
    assert "fields" not in Settings(dimension=3).to_json()
    whole = Settings(dimension=6, fields=2)
    assert Settings.from_json(whole.to_json()) == whole
    with pytest.raises(EmbedkitError, match="documents are single texts"):
        Encoder.load(model).check_searchable()
    assert issubclass(CheckpointError, EmbedkitError)
