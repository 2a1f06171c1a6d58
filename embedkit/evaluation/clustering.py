"""Evaluate embeddings by clustering labelled texts: k-means, then agreement of clusters and labels.

k-means here is Lloyd's algorithm on unit vectors:
1. k-means++ picks k of the vectors as first centres, far ones more likely.
2. Each vector joins its nearest centre; each centre moves to the mean of its vectors. A centre left without any
   moves to the vector farthest from its own centre.
3. Repeat until no vector changes sides. Of several starts, the one with the least inertia is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import EvaluationError
from embedkit.evaluation.agreement import cluster_agreement
from embedkit.evaluation.similarity import Embed, unit_vectors

Floats = NDArray[np.float32]
Clusterer: TypeAlias = Callable[
    [NDArray[np.float32], int], Sequence[int]
]  # (N, E) vectors, k -> N cluster numbers


@dataclass(frozen=True, slots=True)
class ClusteringResult:
    """Agreement of clusters with labels; see `agreement.ClusterAgreement`."""

    v_measure: float
    homogeneity: float
    completeness: float
    adjusted_rand: float
    num_texts: int
    num_labels: int


def evaluate_clustering(
    texts: Sequence[tuple[str, str]], embed: Embed, *, clusterer: Clusterer | None = None, seed: int = 0
) -> ClusteringResult:
    """Cluster (text, label) pairs into as many clusters as there are labels.

    Args:
        clusterer: what assigns clusters; None means `kmeans` with `seed`.

    Raises:
        EvaluationError: fewer than 2 labels, as many labels as texts, or vectors without a direction.
    """
    labels = [label for _, label in texts]
    k = len(set(labels))
    if not 2 <= k < len(labels):
        raise EvaluationError(
            f"{len(labels)} texts have {k} different labels; clustering needs at least 2 labels, and more texts than "
            "labels. Check the label column"
        )
    vectors = unit_vectors([text for text, _ in texts], embed).astype(np.float32)
    clusters = (
        list(clusterer(vectors, k)) if clusterer is not None else kmeans(vectors, k, seed=seed).tolist()
    )
    found = cluster_agreement(labels, clusters)
    return ClusteringResult(
        found.v_measure, found.homogeneity, found.completeness, found.adjusted_rand, len(labels), k
    )


def kmeans(
    vectors: Floats, k: int, *, seed: int = 0, starts: int = 4, max_rounds: int = 100
) -> NDArray[np.int64]:
    """Cut vectors into k clusters; the same seed gives the same clusters.

    Shapes:
        vectors: (N, E)
        returns: (N,) in 0 .. k - 1
    Raises:
        ValueError: k is not in 1 .. N, or starts or max_rounds is below 1.
    Source: Lloyd 1982, https://doi.org/10.1109/TIT.1982.1056489; Arthur and Vassilvitskii 2007 (k-means++),
        https://dl.acm.org/doi/10.5555/1283383.1283494.
    """
    if vectors.ndim != 2 or not 1 <= k <= len(vectors):
        raise ValueError(
            f"k is {k} for vectors of shape {vectors.shape}; they must be (N, E) with 1 <= k <= N"
        )
    if min(starts, max_rounds) < 1:
        raise ValueError(f"starts is {starts}, max_rounds {max_rounds}; both must be at least 1")
    generator = np.random.default_rng(seed)
    runs = [_lloyd(vectors, _first_centres(vectors, k, generator), max_rounds) for _ in range(starts)]
    return min(runs, key=lambda run: run[1])[0]


def _first_centres(vectors: Floats, k: int, generator: np.random.Generator) -> Floats:
    chosen = [int(generator.integers(len(vectors)))]
    nearest = np.full(len(vectors), np.inf)
    for _ in range(k - 1):
        nearest = np.minimum(nearest, _distances(vectors, vectors[chosen[-1:]])[:, 0])
        total = nearest.sum()
        # All vectors are centres already: any further one is as good.
        weights = nearest / total if total > 0 else None
        chosen.append(int(generator.choice(len(vectors), p=weights)))
    return vectors[chosen]


def _lloyd(vectors: Floats, centres: Floats, max_rounds: int) -> tuple[NDArray[np.int64], float]:
    """Return the clusters (N,) and their inertia, the sum of squared distances to the centres."""
    clusters = np.full(len(vectors), -1, np.int64)
    rows = np.arange(len(vectors))
    distances = _distances(vectors, centres)
    for _ in range(max_rounds):
        before, clusters = clusters, distances.argmin(axis=1)
        if (clusters == before).all():
            break
        members = (clusters == np.arange(len(centres))[:, None]).astype(np.float32)  # (K, N)
        counts = members.sum(axis=1)
        centres = members @ vectors / np.maximum(counts, 1)[:, None]
        empty = np.flatnonzero(counts == 0)
        centres[empty] = vectors[np.argsort(-distances[rows, clusters], kind="stable")[: len(empty)]]
        distances = _distances(vectors, centres)
    return clusters, float(distances[rows, clusters].sum(dtype=np.float64))


def _distances(vectors: Floats, centres: Floats) -> NDArray[np.float64]:
    """Compute squared Euclidean distances: (N, K)."""
    squares = (vectors**2).sum(axis=1)[:, None] - 2 * vectors @ centres.T + (centres**2).sum(axis=1)
    distances: NDArray[np.float64] = np.maximum(squares, 0).astype(np.float64)  # rounding may fall below 0
    return distances
