"""Texts as the vectors of their tokens: which tokens get one, what is counted, and fewer vectors by pooling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from embedkit.checkpoint.multi_vector_modules import QueryExpansion, TokenPooling
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.encoding.token_pooling import pool_tokens, ward_clusters
from embedkit.encoding.windows import TextRefusedError
from embedkit.errors import CheckpointError
from embedkit.inference.sample import compared
from embedkit.reranking.maxsim import MaxSim
from embedkit.retrieval.token_vectors import TokenVectors
from tests.tiny import FAMILY_SHAPES, write_static_model, write_tiny_model
from tests.tiny_multi_vector import DIMENSION, ON_CPU, tiny_multi_vector_config, write_tiny_multi_vector

TEXTS = [
    "the dog runs.",
    "",
    "red, blue and green!",
    "the old man walks by the water and " * 3,
    "the dog runs.",
]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_multi_vector(tmp_path_factory.mktemp("mv") / "model")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> MultiVectorEncoder:
    return MultiVectorEncoder.load(folder, computing=ON_CPU)


def test_documents_have_a_vector_for_each_token_but_those_of_the_skiplist(
    encoder: MultiVectorEncoder,
) -> None:
    """[CLS] [unused1] the dog runs [SEP] are 6 (the full stop has none); the long text is cut to 20."""
    found = encoder.encode_documents(TEXTS)
    assert found.counts.tolist() == [6, 3, 7, 20, 6]
    assert found.vectors.shape == (42, DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=TOLERANCE)
    np.testing.assert_array_equal(found.text(0), found.text(4))


def test_queries_are_filled_up_to_one_length(encoder: MultiVectorEncoder) -> None:
    assert encoder.encode_queries(TEXTS).counts.tolist() == [8] * 5
    assert len(encoder.encode_queries([])) == 0


def test_longer_queries_stay_whole_where_the_length_is_the_least(tmp_path: Path) -> None:
    folder = write_tiny_multi_vector(tmp_path / "m", expansion=QueryExpansion(length=8, fixed=False))
    found = MultiVectorEncoder.load(folder, computing=ON_CPU).encode_queries(TEXTS)
    assert found.counts.tolist() == [8, 8, 9, 27, 8]


@pytest.mark.parametrize("backend", ["native", "numpy", "torch"])
def test_tokens_that_fill_up_change_no_others_unless_they_are_attended_to(
    tmp_path: Path, backend: Literal["native", "numpy", "torch"]
) -> None:
    """ "the dog runs." is [CLS] [unused0] the dog runs . [SEP]: 7 tokens, then one that fills up, or none."""
    query = TEXTS[:1]
    vectors = {}
    for name, expansion in {
        "none": None,
        "unattended": QueryExpansion(length=12),
        "attended": QueryExpansion(length=12, attend=True),
    }.items():
        folder = write_tiny_multi_vector(tmp_path / name, expansion=expansion)
        vectors[name] = (
            MultiVectorEncoder.load(folder, computing=replace(ON_CPU, backend=backend))
            .encode_queries(query)
            .vectors
        )
    assert len(vectors["none"]) == 7
    np.testing.assert_allclose(vectors["unattended"][:7], vectors["none"], atol=TOLERANCE)
    assert np.abs(vectors["attended"][:7] - vectors["none"]).max() > 0.01
    assert np.abs(vectors["unattended"][7:] - vectors["attended"][7:]).max() > 0.01


def test_runtimes_agree(folder: Path) -> None:
    found = {
        name: MultiVectorEncoder.load(folder, computing=replace(ON_CPU, backend=name))
        for name in ("native", "numpy", "torch")
    }
    for name in ("numpy", "torch"):
        for encode in ("encode_queries", "encode_documents"):
            ours, theirs = getattr(found["native"], encode)(TEXTS), getattr(found[name], encode)(TEXTS)
            np.testing.assert_array_equal(ours.counts, theirs.counts)
            np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=TOLERANCE)


def test_batches_change_no_vector(encoder: MultiVectorEncoder, folder: Path) -> None:
    small = MultiVectorEncoder(encoder.folder, encoder.backend, token_budget=24)
    for encode in ("encode_queries", "encode_documents"):
        ours, theirs = getattr(small, encode)(TEXTS * 3), getattr(encoder, encode)(TEXTS * 3)
        np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=TOLERANCE)


def test_cut_empty_and_unknown_texts_are_counted(encoder: MultiVectorEncoder) -> None:
    (window,) = encoder.encode_windows([*TEXTS, "日本"], role="document")
    assert window.truncated.tolist() == [False, False, False, True, False, False]
    assert window.empty.tolist() == [False, True, False, False, False, False]
    assert window.unknown.tolist() == [False] * 5 + [True]
    assert window.num_tokens == 7 + 3 + 9 + 20 + 5  # equal texts are read once
    (window,) = encoder.encode_windows(TEXTS, role="query")
    assert window.truncated.tolist() == [False, False, True, True, False]


def test_long_texts_are_refused_or_read_in_pieces_as_asked_for(encoder: MultiVectorEncoder) -> None:
    with pytest.raises(TextRefusedError, match=r"has 27 tokens; the model reads 20"):
        list(encoder.encode_windows(TEXTS, role="document", on_truncate="error"))
    (window,) = encoder.encode_windows(TEXTS, role="document", on_truncate="chunk")
    assert window.vectors.counts.tolist() == [6, 3, 7, 20 + 10, 6]
    with pytest.raises(ValueError, match="filled up are not cut into pieces"):
        encoder.encode_windows(TEXTS, role="query", on_truncate="chunk")


def test_a_prompt_that_leaves_no_room_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_multi_vector(tmp_path / "m", prompts={"document": "the dog " * 20})
    with pytest.raises(CheckpointError, match=r"has 40 tokens; the model reads 18 of a document"):
        MultiVectorEncoder.load(folder, computing=ON_CPU).encode_documents(TEXTS)


def test_what_cannot_leave_tokens_unattended_is_refused(tmp_path: Path) -> None:
    config = tiny_multi_vector_config(**FAMILY_SHAPES["deberta-v2"])
    folder = write_tiny_multi_vector(tmp_path / "m", config=config)
    with pytest.raises(CheckpointError, match="not computed with disentangled attention"):
        MultiVectorEncoder.load(folder, computing=ON_CPU)
    attended = write_tiny_multi_vector(
        tmp_path / "attended", config=config, expansion=QueryExpansion(length=8, attend=True)
    )
    assert MultiVectorEncoder.load(attended, computing=ON_CPU).encode_queries(
        ["the dog"]
    ).counts.tolist() == [8]


def test_pooling_keeps_one_vector_in_so_many(encoder: MultiVectorEncoder, folder: Path) -> None:
    pooled = MultiVectorEncoder.load(folder, computing=ON_CPU, token_pooling=2)
    found = pooled.encode_documents(TEXTS)
    assert found.counts.tolist() == [1 + 5 // 2, 1 + 1, 1 + 3, 1 + 19 // 2, 1 + 5 // 2]
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=TOLERANCE)
    np.testing.assert_array_equal(found.text(0)[0], encoder.encode_documents(TEXTS).text(0)[0])
    np.testing.assert_array_equal(pooled.encode_queries(TEXTS).vectors, encoder.encode_queries(TEXTS).vectors)
    assert pooled.document_pooling == 2
    assert pooled.fingerprint != encoder.fingerprint
    with pytest.raises(ValueError, match=r"token_pooling is 0.5; it must be at least 1"):
        MultiVectorEncoder.load(folder, computing=ON_CPU, token_pooling=0.5)


def test_the_folders_own_pooling_is_done_unless_another_is_asked_for(tmp_path: Path) -> None:
    folder = write_tiny_multi_vector(tmp_path / "m", pooling=TokenPooling(factor=3, protected=0))
    assert MultiVectorEncoder.load(folder, computing=ON_CPU).encode_documents(TEXTS[:1]).counts.tolist() == [
        2
    ]
    whole = MultiVectorEncoder.load(folder, computing=ON_CPU, token_pooling=1)
    assert whole.encode_documents(TEXTS[:1]).counts.tolist() == [6]


def test_clusters_are_the_nearest_by_ward() -> None:
    """Two pairs of near points and one far from all: of three clusters each pair is one."""
    points = np.array([[1, 0, 0], [0, 1, 0], [0.99, 0.1, 0], [0.1, 0.99, 0], [0, 0, 1]], np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert ward_clusters(1 - points @ points.T, 3).tolist() == [0, 1, 0, 1, 2]


def test_pooling_refuses_odd_numbers_and_leaves_few_vectors_alone() -> None:
    one = TokenVectors(np.eye(3, dtype=np.float32), np.array([1, 0, 2]))
    assert pool_tokens(one, factor=2).counts.tolist() == [1, 0, 2]
    assert pool_tokens(one, factor=1) is one
    with pytest.raises(ValueError, match="must be at least 1 and 0"):
        pool_tokens(one, factor=0.9)


def test_a_dense_model_gives_the_vectors_of_its_own_tokens(tmp_path: Path) -> None:
    dense = Encoder.load(write_tiny_model(tmp_path / "dense"), device="cpu")
    made = MultiVectorEncoder.of_dense(dense)
    found = made.encode_documents(["the dog runs.", "", "red"])
    assert found.counts.tolist() == [4, 0, 1]
    assert made.fingerprint["kind"] == "multi-vector"
    static = Encoder.load(write_static_model(tmp_path / "static"), device="cpu")
    with pytest.raises(CheckpointError, match="a static model gives its tokens no vectors in context"):
        MultiVectorEncoder.of_dense(static)


def test_maxsim_takes_either_kind(encoder: MultiVectorEncoder) -> None:
    query, texts = "the dog", ["the dog runs", "red", "a cat sleeps"]
    asked, found = encoder.encode_queries([query]).vectors, encoder.encode_documents(texts)
    wanted = [float((asked @ found.text(n).T).max(axis=1).mean()) for n in range(3)]
    reranker = MaxSim(encoder)
    np.testing.assert_allclose(reranker.score(query, texts), wanted, atol=TOLERANCE)
    assert (reranker.name, reranker.max_length) == (encoder.name, 20)
    assert reranker.counts.pairs == 3


def test_texts_are_taken_by_their_places() -> None:
    found = TokenVectors(np.arange(12, dtype=np.float32).reshape(6, 2), np.array([1, 3, 0, 2]))
    taken = found.take(np.array([3, 2, 1, 1]))
    assert taken.counts.tolist() == [2, 0, 3, 3]
    np.testing.assert_array_equal(taken.text(0), found.text(3))
    np.testing.assert_array_equal(taken.text(3), found.text(1))
    assert found.take(np.arange(4)) is found


def test_its_precision_is_measured_on_token_vectors(encoder: MultiVectorEncoder) -> None:
    batch = encoder.folder.encoder.tokenizer.encode(TEXTS)
    found = compared(encoder.backend, batch, "hidden_states")
    assert found.shape == (len(batch.input_ids), 32)
    assert encoder.choice is not None
    assert encoder.choice.output == "hidden_states"
