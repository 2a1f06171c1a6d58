"""Similarities that a model learned, with numpy: what of them a search by products can use, and comparisons of a few vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embedkit.checkpoint.arrays import load_parts
from embedkit.checkpoint.folder import ModelFolder
from embedkit.errors import CheckpointError
from embedkit.model.learned_parts import LearnedKind
from embedkit.types import Float32


class LearnedComparison:
    """The twin of `embedkit.model.similarity.LearnedSimilarity`, over unit vectors.

    A bilinear one, qᵀWd, is the product of Wᵀq with d: with queries turned by `as_queries`, any index finds by it. An additive one is
    no product of two vectors.
    """

    def __init__(self, kind: LearnedKind, weights: Mapping[str, Float32], where: Path) -> None:
        self.kind, self.weights, self.where = kind, dict(weights), where

    @classmethod
    def load(cls, folder: ModelFolder) -> LearnedComparison:
        """Read the similarity of a folder, which has one.

        Raises:
            CheckpointError: its weights are missing, mis-shaped or damaged.
        """
        similarity = folder.modules.sentence.similarity
        assert similarity is not None
        return cls(similarity.kind, load_parts(folder)["similarity"], folder.path)

    def as_queries(self, vectors: Float32) -> Float32:
        """Turn the vectors of queries, (Q, E) or (E,), so that their product with documents' is the similarity, if it is bilinear."""
        if self.kind != "bilinear":
            return vectors
        turned: Float32 = vectors @ self.weights["weight"]
        return turned

    def compare(self, queries: Float32, documents: Float32) -> Float32:
        """Compare what `as_queries` gave with documents' vectors: (Q, E), (N, E) -> (Q, N) float32."""
        first, second = np.atleast_2d(queries), np.atleast_2d(documents)
        if self.kind == "bilinear":
            products: Float32 = first @ second.T
            return products
        weights, scale = self.weights, np.float32(first.shape[1] ** 0.5)
        left = scale * first @ weights["first.weight"].T + weights["first.bias"]  # (Q, A)
        right = scale * second @ weights["second.weight"].T  # (N, A)
        rows = [np.tanh(row + right) @ weights["score"] for row in left]
        return np.stack(rows) if rows else np.empty((0, len(second)), np.float32)

    def check_searchable(self) -> None:
        """Refuse to search by a similarity that is no product.

        Raises:
            CheckpointError: it is additive.
        """
        if self.kind == "additive":
            raise CheckpointError(
                f"{self.where}: its similarity is additive, s·tanh(Wq + Ud), which is no product of two vectors, and an index "
                "searches by products. Train with loss.similarity=bilinear, or compare few texts with Encoder.similarity"
            )
