"""Fewer vectors for a text: those that lie near one another become their mean, by hierarchical clustering.

1. The distance of two tokens is one less their cosine.
2. Ward's rule merges the two nearest clusters, until one is left for every `factor` tokens.
3. Each cluster's vector is the mean of its tokens', brought to unit length. The first `protected` tokens stay as they are.

Source: Clavié et al. 2024, https://arxiv.org/abs/2409.14683, section 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.retrieval.token_vectors import TokenVectors
from embedkit.types import Float32


def pool_tokens(found: TokenVectors, *, factor: float, protected: int = 1) -> TokenVectors:
    """Keep about one vector in `factor` of each text: clusters in the order of their first tokens, behind the protected ones.

    Raises:
        ValueError: the factor is below 1, or `protected` below 0.
    """
    if factor < 1 or protected < 0:
        raise ValueError(f"factor is {factor:g} and protected {protected}; they must be at least 1 and 0")
    if factor == 1 or not len(found):
        return found
    texts = [_pooled(found.text(number), factor, protected) for number in range(len(found))]
    counts = np.array([len(text) for text in texts], dtype=np.int64)
    return TokenVectors(np.concatenate(texts), counts)


def _pooled(vectors: Float32, factor: float, protected: int) -> Float32:
    kept, rest = vectors[:protected], vectors[protected:]
    wanted = max(int(len(rest) // factor), 1)
    if wanted >= len(rest):
        return vectors
    owners = ward_clusters(1 - rest @ rest.T, wanted)
    sums = np.zeros((wanted, rest.shape[1]), np.float32)
    np.add.at(sums, owners, rest)
    counts = np.bincount(owners, minlength=wanted).astype(np.float32)
    return np.concatenate([kept, normalize(sums / counts[:, None])])


def ward_clusters(distances: Float32, num_clusters: int) -> NDArray[np.int64]:
    """Merge points into `num_clusters` clusters by Ward's rule, and number these by their first points: (T, T) -> (T,).

    Source: the recurrence of Lance and Williams 1967, in Ward's form for distances (Müllner 2011, https://arxiv.org/abs/1109.2378, fig. 2).
    """
    count = len(distances)
    squared = np.square(np.clip(distances, 0, None).astype(np.float64))
    np.fill_diagonal(squared, np.inf)
    sizes = np.ones(count)
    owners = np.arange(count)
    for _ in range(count - num_clusters):
        first, second = sorted(divmod(int(squared.argmin()), count))
        both = sizes[first] + sizes[second]
        merged = (
            (sizes + sizes[first]) * squared[first]
            + (sizes + sizes[second]) * squared[second]
            - sizes * squared[first, second]
        ) / (sizes + both)
        squared[first] = squared[:, first] = merged
        squared[first, first] = np.inf
        squared[second] = squared[:, second] = np.inf
        sizes[first] = both
        owners[owners == second] = first
    return np.unique(owners, return_inverse=True)[1].astype(np.int64)
