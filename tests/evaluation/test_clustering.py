from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from embedkit.errors import EvaluationError
from embedkit.evaluation.agreement import cluster_agreement
from embedkit.evaluation.clustering import _lloyd, evaluate_clustering, kmeans


def _blobs(k: int, each: int, *, spread: float) -> tuple[NDArray[np.float32], list[int]]:
    generator = np.random.default_rng(9)
    centres = np.eye(k, 8)
    labels = np.repeat(np.arange(k), each)
    vectors = centres[labels] + generator.normal(0, spread, (k * each, 8))
    return vectors.astype(np.float32), labels.tolist()


def test_kmeans_finds_clusters_that_lie_apart() -> None:
    vectors, labels = _blobs(6, 30, spread=0.05)
    assert cluster_agreement(labels, kmeans(vectors, 6).tolist()).v_measure == 1.0


def test_kmeans_gives_the_same_clusters_for_the_same_seed() -> None:
    vectors, _ = _blobs(5, 20, spread=0.4)
    np.testing.assert_array_equal(kmeans(vectors, 5, seed=3), kmeans(vectors, 5, seed=3))


def test_kmeans_ends_at_clusters_that_are_nearest_their_means() -> None:
    vectors, _ = _blobs(5, 20, spread=0.4)
    clusters = kmeans(vectors, 5)
    means = np.stack([vectors[clusters == cluster].mean(axis=0) for cluster in range(5)])
    distances = ((vectors[:, None] - means) ** 2).sum(axis=2)
    np.testing.assert_array_equal(distances.argmin(axis=1), clusters)


def test_kmeans_leaves_no_cluster_empty_where_the_vectors_allow_it() -> None:
    vectors = np.array([[0, 0]] * 20 + [[1, 0], [0, 1]], np.float32)
    assert len(set(kmeans(vectors, 3, starts=1).tolist())) == 3


def test_centres_without_vectors_move_to_the_farthest_ones() -> None:
    """All four join the first centre, 0. The other two centres move to 9 and 8, and then part 9 from 8."""
    vectors, centres = np.array([[0], [1], [8], [9]], np.float32), np.array([[0], [100], [200]], np.float32)
    clusters, inertia = _lloyd(vectors, centres, 1)
    assert clusters.tolist() == [0, 0, 0, 0]
    clusters, inertia = _lloyd(vectors, centres, 9)
    assert clusters.tolist() == [0, 0, 2, 1]
    assert inertia == 0.5


def test_kmeans_of_equal_vectors_ends() -> None:
    assert kmeans(np.ones((5, 3), np.float32), 2).shape == (5,)


def test_kmeans_refuses_more_clusters_than_vectors() -> None:
    with pytest.raises(ValueError, match=r"k is 4 for vectors of shape \(3, 2\)"):
        kmeans(np.ones((3, 2), np.float32), 4)
    with pytest.raises(ValueError, match=r"starts is 0, max_rounds 100"):
        kmeans(np.ones((3, 2), np.float32), 2, starts=0)


def _by_first_letter(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.eye(4, dtype=np.float32)[["abcd".index(text[0]) for text in texts]]


TEXTS = [("a1", "x"), ("a2", "x"), ("b1", "y"), ("b2", "y"), ("b3", "y")]


def test_labelled_texts_are_clustered_into_as_many_clusters() -> None:
    found = evaluate_clustering(TEXTS, _by_first_letter)
    assert (found.v_measure, found.adjusted_rand, found.num_texts, found.num_labels) == (1.0, 1.0, 5, 2)


def test_another_clusterer_may_be_used() -> None:
    def one_odd(vectors: NDArray[np.float32], k: int) -> list[int]:
        assert (vectors.shape, k) == ((5, 4), 2)
        return [0, 1, 1, 1, 1]

    assert evaluate_clustering(TEXTS, _by_first_letter, clusterer=one_odd).v_measure < 1.0


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([("a", "x"), ("b", "x")], r"2 texts have 1 different labels; clustering needs at least 2 labels"),
        ([("a", "x"), ("b", "y")], r"2 texts have 2 different labels; .* more texts than labels"),
        ([], r"0 texts have 0 different labels"),
    ],
)
def test_texts_that_cannot_be_clustered_are_an_error(texts: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate_clustering(texts, _by_first_letter)
