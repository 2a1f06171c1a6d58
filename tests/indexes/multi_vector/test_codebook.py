"""Token vectors told by a codebook: by a worked example, and over any vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import IndexFileError
from indexes.multi_vector import codebook as codebooks
from indexes.multi_vector.codebook import Codebook
from indexes.multi_vector.training import lloyd, num_centroids, train
from indexes.storage.codes import FloatArray

WORKED = Codebook(
    bits=2,
    centroids=np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.float32),
    scales=np.array([0.1, 0.1, 0.2, 0.1, 0.1], np.float32),
    cutoffs=np.array([-1, 0, 1], np.float32),
    weights=np.array([-1.5, -0.5, 0.5, 1.5], np.float32),
)


def unit(rows: object) -> FloatArray:
    vectors = np.asarray(rows, np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def random_vectors(count: int, dimension: int = 16, seed: int = 0) -> FloatArray:
    return unit(np.random.default_rng(seed).standard_normal((count, dimension)))


@pytest.fixture(params=[True, False], ids=["kernels", "numpy"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(codebooks, "can_search", lambda: False)


def test_a_vector_is_its_nearest_centroid_a_gain_and_four_numbers_a_byte(either: None) -> None:
    vectors = np.array([[0.95, 0.15, -0.4, 0.05, -0.05]], np.float32)
    ids, codes = WORKED.encode(vectors)
    # The difference over the scales: -.5 1.5 -2 .5 -.5, whose root mean square is 1.1832; over that: -.42 1.27 -1.69 .42 -.42
    # That is told as -.5 1.5 -1.5 .5 -.5, times the scales -.05 .15 -.3 .05 -.05.
    # Gain: (.0025 + .0225 + .12 + .0025 + .0025) / (.0025 + .0225 + .09 + .0025 + .0025) = .15 / .12 = 1.25 = 2^(10.3 / 32)
    assert (ids.tolist(), codes.tolist()) == ([0], [[128 + 10, 1 | 3 << 2 | 0 << 4 | 2 << 6, 1]])
    told = 2 ** (10 / 32) * np.array([-0.05, 0.15, -0.3, 0.05, -0.05])
    np.testing.assert_allclose(WORKED.decode(ids, codes), unit([np.array([1, 0, 0, 0, 0]) + told]), atol=1e-6)
    assert WORKED.encode(np.array([[0.1, 0.9, 0, 0, 0]], np.float32))[0].tolist() == [1]


@pytest.mark.parametrize("bits", [2, 4])
def test_more_vectors_make_a_codebook_that_tells_them_better(bits: int) -> None:
    vectors = random_vectors(3000)
    worst = []
    for count in (200, 3000):
        made = train(vectors[:count], bits)
        worst.append(float((made.decode(*made.encode(vectors[:200])) * vectors[:200]).sum(axis=1).mean()))
    assert num_centroids(200) == 1
    assert num_centroids(3000) == 64
    assert worst[1] > worst[0] > (0.9 if bits == 2 else 0.99)


def test_the_same_vectors_make_the_same_codebook() -> None:
    vectors = random_vectors(2000)
    assert train(vectors, 2).to_bytes() == train(vectors.copy(), 2).to_bytes()


def test_numbers_of_centroids_grow_with_the_root_of_the_tokens() -> None:
    assert [num_centroids(tokens) for tokens in (0, 1023, 1024, 10_000, 1_000_000, 10**9)] == [
        1,
        1,
        32,
        256,
        4096,
        65_536,
    ]


def test_lloyd_puts_weights_where_numbers_are() -> None:
    cutoffs, weights = lloyd(np.repeat(np.array([-3, -1, 1, 5], np.float32), 10), 2)
    assert weights.tolist() == [-3, -1, 1, 5]
    assert cutoffs.tolist() == [-2, 0, 3]
    # of the normal distribution: Max 1960, table I
    _, normal = lloyd(np.random.default_rng(1).standard_normal(200_000).astype(np.float32), 2)
    np.testing.assert_allclose(normal, [-1.510, -0.4528, 0.4528, 1.510], atol=0.02)


@given(
    st.integers(1, 40), st.sampled_from([2, 4]), st.integers(1, 5), st.integers(0, 30), st.integers(0, 1000)
)
@settings(max_examples=40, deadline=None)
def test_what_is_told_is_told_again_alike_and_survives_the_database(
    dimension: int, bits: int, count: int, tokens: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    cutoffs, weights = lloyd(rng.standard_normal(1000).astype(np.float32), bits)
    scales = (rng.random(dimension) + 0.01).astype(np.float32)
    book = Codebook(bits, random_vectors(count, dimension, seed), scales, cutoffs, weights)
    vectors = random_vectors(tokens, dimension, seed + 1)
    ids, codes = book.encode(vectors)
    assert codes.shape == (tokens, 1 - (-dimension * bits // 8))
    again = Codebook.from_bytes(book.to_bytes(), "here")
    np.testing.assert_array_equal(again.decode(ids, codes), book.decode(ids, codes))
    lengths = np.linalg.norm(book.decode(ids, codes), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    best = (vectors @ book.centroids.T).max(axis=1, initial=-np.inf)
    np.testing.assert_allclose((vectors * book.centroids[ids]).sum(axis=1), best, atol=1e-6)


def test_a_damaged_codebook_is_refused() -> None:
    stored = WORKED.to_bytes()
    for at in (0, 5, 30, len(stored) - 1):
        harmed = bytearray(stored)
        harmed[at] ^= 4
        with pytest.raises(
            IndexFileError, match="here: the codebook of the token vectors is not what was written"
        ):
            Codebook.from_bytes(bytes(harmed), "here")
    with pytest.raises(IndexFileError, match="Build the index again"):
        Codebook.from_bytes(stored[:20], "here")
