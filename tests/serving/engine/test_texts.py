"""Texts for multi-vector and sparse indexes: in whatever company they are computed, they are as the encoder gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedkit.checkpoint.folder import read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.encoding.sparse import SparseEncoder
from embedkit.encoding.sparse_embedder import SparseEmbedder
from embedkit.encoding.token_embedder import TokenEmbedder
from embedkit.retrieval.token_vectors import TokenVectors
from embedkit.serving.engine.engine import EmbedWork, Engine
from embedkit.serving.engine.text_tasks import TextsWork
from embedkit.types import TextRole
from tests.checkpoint.test_sparse import ON_CPU, write_tiny_sparse
from tests.serving.engine.fakes import PATIENCE_SECONDS, HeldBackend
from tests.tiny import write_tiny_model
from tests.tiny_cross_encoder import LONG
from tests.tiny_multi_vector import write_tiny_multi_vector

ROUNDING = 1e-6  # other batch shapes
TEXTS = ["the dog runs", "", "水 水", "girl", "the dog runs", LONG, "  ", "a small red horse"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("kinds")
    write_tiny_multi_vector(made / "tokens")
    write_tiny_sparse(made / "terms")
    write_tiny_sparse(made / "table", weigh_queries=True)
    return made


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("together", [False, True])
def test_token_vectors_are_those_of_the_encoder(folder: Path, role: TextRole, together: bool) -> None:
    """Queries are filled up with tokens that no other attends to, also where those of several requests are joined."""
    encoder = MultiVectorEncoder.load(folder / "tokens")
    wanted = TokenEmbedder(encoder, role)(TEXTS)
    with Engine() as engine:
        works = [[text] for text in TEXTS] if together else [TEXTS]
        futures = [engine.encode(TextsWork(encoder=encoder, texts=texts, role=role)) for texts in works]
        found = [future.result(PATIENCE_SECONDS) for future in futures]
    vectors = TokenVectors.concatenate([each.vectors for each in found])  # type: ignore[misc] # of this kind
    np.testing.assert_array_equal(vectors.counts, wanted.counts)
    np.testing.assert_allclose(vectors.vectors, wanted.vectors, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(np.flatnonzero(np.concatenate([each.truncated for each in found])), [5])
    assert (vectors.counts[[1, 2, 6]] == 0).all() == (role == "query")


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("name", ["terms", "table"])
def test_weights_are_those_of_the_encoder(folder: Path, name: str, role: TextRole) -> None:
    encoder = SparseEncoder.load(folder / name, computing=ON_CPU, max_active_dims=9)
    wanted = SparseEmbedder(encoder, role)(TEXTS)
    with Engine() as engine:
        work = TextsWork(encoder=encoder, texts=TEXTS, role=role)
        found = engine.encode(work).result(PATIENCE_SECONDS)
    np.testing.assert_allclose(found.vectors.to_dense(), wanted.to_dense(), rtol=0, atol=ROUNDING)  # type: ignore[union-attr] # of the sparse kind
    np.testing.assert_array_equal(np.flatnonzero(found.empty), [1, 6])


def test_queries_that_wait_are_computed_in_one_batch(folder: Path, tmp_path: Path) -> None:
    """While another model computes, queries of several requests wait; then they go together, each with what is its own."""
    encoder, held = MultiVectorEncoder.load(folder / "tokens"), HeldBackend()
    other = Encoder(read_model_folder(write_tiny_model(tmp_path / "dense")), held)
    wanted = TokenEmbedder(encoder, "query")(TEXTS)
    with Engine() as engine:
        with held.held():
            first = engine.embed(EmbedWork(encoder=other, texts=["the dog"], priority="interactive"))
            held.wait_until_computing()
            futures = [
                engine.encode(TextsWork(encoder=encoder, texts=[text], role="query")) for text in TEXTS
            ]
        first.result(PATIENCE_SECONDS)
        found = [future.result(PATIENCE_SECONDS).vectors for future in futures]
        assert engine.stats().totals["embed"].batches < 1 + len(TEXTS)
    for number, each in enumerate(found):
        np.testing.assert_allclose(each.vectors, wanted.text(number), rtol=0, atol=ROUNDING)  # type: ignore[union-attr] # token vectors


def test_no_texts_are_refused(folder: Path) -> None:
    encoder = MultiVectorEncoder.load(folder / "tokens")
    with Engine() as engine, pytest.raises(ValueError, match="no texts were given"):
        engine.encode(TextsWork(encoder=encoder, texts=[], role="query")).result(PATIENCE_SECONDS)
