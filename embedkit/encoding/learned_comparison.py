"""Similarities that a model learned, with numpy: what of them a search by products can use, and comparisons of a few vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embedkit.checkpoint.arrays import load_parts
from embedkit.checkpoint.folder import ModelFolder
from embedkit.encoding.field_experts import compare_fields, documents_of_fields, queries_of_fields
from embedkit.errors import CheckpointError
from embedkit.model.learned_parts import LearnedKind
from embedkit.types import Float32


class LearnedComparison:
    """The twin of `LearnedSimilarity` and `FieldExperts` in `embedkit.model`, over unit vectors.

    A bilinear one, qᵀWd, is the product of Wᵀq with d: with queries turned by `as_queries`, any index finds by it. An additive one is
    no product of two vectors. That of F fields compares queries and documents as `as_queries` and `as_documents` lay them out, F·E long.
    """

    def __init__(
        self, kind: LearnedKind, weights: Mapping[str, Float32], where: Path, *, fields: tuple[str, ...] = ()
    ) -> None:
        self.kind, self.weights, self.where, self.fields = kind, dict(weights), where, fields

    @classmethod
    def load(cls, folder: ModelFolder) -> LearnedComparison:
        """Read the similarity of a folder, which has one.

        Raises:
            CheckpointError: its weights are missing, mis-shaped or damaged.
        """
        similarity = folder.modules.sentence.similarity
        assert similarity is not None
        weights = load_parts(folder)["similarity"]
        return cls(similarity.kind, weights, folder.path, fields=similarity.fields)

    def as_queries(self, vectors: Float32) -> Float32:
        """Turn the vectors of queries, (Q, E) or (E,), so that their product with documents' is the similarity, if it is bilinear.

        For fields: -> (Q, F·E) or (F·E,), whose parts are as long as the fields' weights.
        """
        if self.kind == "fields":
            return queries_of_fields(vectors, self.weights)
        if self.kind != "bilinear":
            return vectors
        turned: Float32 = vectors @ self.weights["weight"]
        return turned

    def as_documents(self, vectors: Float32) -> Float32:
        """Lay out documents with fields, zeros for a missing one: (N, F, E) -> (N, F·E), whose parts have length 1, or 0."""
        return documents_of_fields(vectors, self.weights)

    def compare(self, queries: Float32, documents: Float32) -> Float32:
        """Compare what `as_queries` gave with documents' vectors: (Q, E), (N, E) -> (Q, N) float32."""
        first, second = np.atleast_2d(queries), np.atleast_2d(documents)
        if self.kind == "fields":
            return compare_fields(first, second, num_fields=len(self.fields))
        if self.kind == "bilinear":
            products: Float32 = first @ second.T
            return products
        weights, scale = self.weights, np.float32(first.shape[1] ** 0.5)
        left = scale * first @ weights["first.weight"].T + weights["first.bias"]  # (Q, A)
        right = scale * second @ weights["second.weight"].T  # (N, A)
        rows = [np.tanh(row + right) @ weights["score"] for row in left]
        return np.stack(rows) if rows else np.empty((0, len(second)), np.float32)

    def check_searchable(self, *, by_field: bool) -> None:
        """Refuse to search by a similarity that is no product; that of fields will do for an index that compares `by_field`.

        Raises:
            CheckpointError: it is additive, or that of fields.
        """
        if self.kind == "fields" and not by_field:
            raise CheckpointError(
                f"{self.where}: it compares queries with documents that have the fields {', '.join(self.fields)}, and here documents are "
                "single texts. Take a model without fields; those with them search by index build and search"
            )
        if self.kind == "additive":
            raise CheckpointError(
                f"{self.where}: its similarity is additive, s·tanh(Wq + Ud), which is no product of two vectors, and an index "
                "searches by products. Train with loss.similarity=bilinear, or compare few texts with Encoder.similarity"
            )
