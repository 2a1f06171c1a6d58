"""Similarities between two sets of vectors."""

from __future__ import annotations

import numpy as np

from embedkit.types import Float32


def similarity(first: Float32, second: Float32, *, measure: str | None) -> Float32:
    """Compare each of N vectors with each of M; a single vector (E,) counts as one row.

    `measure` is as sentence-transformers names it, None cosine: "dot", "cosine", or "euclidean" and "manhattan", whose distances are
    negated, so that higher is better. A vector of zeros has a cosine of 0 with all.

    Shapes:
        first: (N, E); second: (M, E)
        returns: (N, M) float32
    """
    left, right = np.atleast_2d(np.asarray(first, np.float32)), np.atleast_2d(np.asarray(second, np.float32))
    if measure == "manhattan":
        return np.stack([-np.abs(row - right).sum(axis=1) for row in left]) if len(left) else left @ right.T
    products: Float32 = left @ right.T
    if measure == "euclidean":
        squares = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)[None, :] - 2 * products
        distances: Float32 = -np.sqrt(np.maximum(squares, 0))
        return distances
    if measure == "dot":
        return products
    norms = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)[None, :]
    cosines: Float32 = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return cosines
