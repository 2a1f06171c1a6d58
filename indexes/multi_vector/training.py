"""Making a codebook of the first commit's token vectors: centroids by k-means, scales and cutoffs from what these leave."""

from __future__ import annotations

import numpy as np

from ..storage.codes import FloatArray
from .codebook import MAX_CENTROIDS, Codebook, normed

# Fewer tokens say little of later ones: then the vectors themselves are told, as if their numbers were normally distributed.
FEWEST_TOKENS = 1024
TOKENS_PER_CENTROID = 24  # at least, and as many are looked at
ITERATIONS = 6
HELD_OUT = 65_536  # tokens from which scales and cutoffs come
_LLOYD_STEPS = 60
_SAMPLE = 400_000  # numbers


def num_centroids(tokens: int) -> int:
    """Return how many centroids so many tokens get: a power of two near 8 sqrt(T), half of what PLAID takes, but none with too few tokens."""
    if tokens < FEWEST_TOKENS:
        return 1
    most = min(MAX_CENTROIDS, 8 * tokens**0.5, tokens / TOKENS_PER_CENTROID)
    return int(2 ** np.floor(np.log2(most)))


def train(vectors: FloatArray, bits: int, *, seed: int = 0) -> Codebook:
    """Make a codebook for vectors such as these, (T, D) of unit length; the same vectors make the same one."""
    count, dimension = num_centroids(len(vectors)), vectors.shape[1]
    if count == 1:
        cutoffs, weights = lloyd(_normal_sample(), bits)
        scales = np.full(dimension, dimension**-0.5, np.float32)
        return Codebook(bits, np.zeros((1, dimension), np.float32), scales, cutoffs, weights)
    order = np.random.default_rng(seed).permutation(len(vectors))
    centroids = _centroids(vectors[np.sort(order[: count * TOKENS_PER_CENTROID])], count, seed)
    # Of vectors that made the centroids the differences are smaller than of others.
    rest = order[count * TOKENS_PER_CENTROID :] if len(order) >= 2 * count * TOKENS_PER_CENTROID else order
    held_out = vectors[rest[:HELD_OUT]]
    ones = np.ones(dimension, np.float32)
    untold = Codebook(bits, centroids, ones, np.empty(0, np.float32), np.empty(0, np.float32))
    differences = held_out - centroids[untold.nearest(held_out)]
    widths = np.sqrt(np.mean(differences * differences, axis=0))
    scales = np.maximum(widths, max(float(widths.max()) * 0.02, 1e-6)).astype(np.float32)
    values = normed(differences, scales).ravel()
    cutoffs, weights = lloyd(values[:: max(1, len(values) // _SAMPLE)], bits)
    return Codebook(bits, centroids, scales, cutoffs, weights)


def _centroids(vectors: FloatArray, count: int, seed: int) -> FloatArray:
    from ..search.ann import k_means

    return k_means(vectors, count, seed=seed, spherical=True, iterations=ITERATIONS)[1]


def lloyd(values: FloatArray, bits: int) -> tuple[FloatArray, FloatArray]:
    """Return the cutoffs (2^bits - 1,) and weights (2^bits,) that tell numbers with the least mean square error.

    Source: Lloyd 1982, https://doi.org/10.1109/TIT.1982.1056489, method I, from equally many numbers a weight.
    """
    ordered = np.sort(values.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    borders = np.linspace(0, len(ordered), 2**bits + 1).astype(np.int64)
    weights = np.zeros(2**bits)
    for _ in range(_LLOYD_STEPS):
        counts = np.diff(borders)
        means = np.diff(sums[borders]) / np.maximum(counts, 1)
        weights = np.where(counts > 0, means, weights)
        cutoffs = (weights[1:] + weights[:-1]) / 2
        borders[1:-1] = np.searchsorted(ordered, cutoffs, side="right")
    return cutoffs.astype(np.float32), weights.astype(np.float32)


def _normal_sample() -> FloatArray:
    return np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
