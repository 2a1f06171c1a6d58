"""The mixture of experts over fields with numpy, whatever backend computed the sentence vectors.

The twin of `embedkit.model.field_experts`, which says what is computed and whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.model.learned_parts import LEAST_LOG_WEIGHT
from embedkit.types import Float32

Weights = Mapping[str, Float32]


def queries_of_fields(vectors: Float32, weights: Weights) -> Float32:
    """Lay out queries: (Q, E) or (E,) -> (Q, F·E) or (F·E,), each part as long as its field's weight; zeros stay zeros."""
    if vectors.ndim == 1:
        one: Float32 = queries_of_fields(vectors[None], weights)[0]
        return one
    logits = _scaled(vectors) @ weights["router.weight"].T  # (Q, F)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_weights = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    shares = np.exp(np.maximum(log_weights, np.float32(LEAST_LOG_WEIGHT)))
    repeated = np.repeat(vectors[:, None], shares.shape[1], axis=1)  # (Q, F, E)
    parts = shares[:, :, None] * _gated(repeated, weights, "query_experts")
    stacked: Float32 = parts.reshape(len(vectors), -1)
    return stacked


def documents_of_fields(vectors: Float32, weights: Weights) -> Float32:
    """Lay out documents, zeros for a missing field: (N, F, E) -> (N, F·E), each part of length 1, or 0."""
    return _gated(vectors, weights, "document_experts").reshape(len(vectors), -1)


def compare_fields(queries: Float32, documents: Float32, *, num_fields: int) -> Float32:
    """Compare queries and documents as laid out: (Q, F·E), (N, F·E) -> (Q, N); 0 with a document that has no field."""
    shares = np.linalg.norm(queries.reshape(len(queries), num_fields, -1), axis=2)  # (Q, F)
    divisors = shares @ fields_present(documents, num_fields=num_fields).astype(np.float32).T  # (Q, N)
    similarities: Float32 = queries @ documents.T / np.maximum(divisors, np.finfo(np.float32).tiny)
    return similarities


def fields_present(documents: Float32, *, num_fields: int) -> NDArray[np.bool_]:
    """Say which fields documents as laid out have: (N, F·E) -> (N, F) bool."""
    nonzero = documents.reshape(len(documents), num_fields, -1) != 0
    present: NDArray[np.bool_] = np.logical_or.reduce(nonzero, axis=2)
    return present


def _gated(vectors: Float32, weights: Weights, side: str) -> Float32:
    """Put the vectors of each field through its gated unit: (N, F, E) -> (N, F, E)."""
    scaled, out = _scaled(vectors), np.empty_like(vectors)
    for field in range(vectors.shape[1]):
        weight, bias, gate, gate_bias = (
            weights[f"{side}.{name}"][field] for name in ("weight", "bias", "gate", "gate_bias")
        )
        inner = scaled[:, field] @ weight.T + bias
        out[:, field] = inner * (1 + np.tanh((inner @ gate.T + gate_bias) / 2)) / 2  # σ, without overflow
    unit: Float32 = normalize(out.reshape(-1, out.shape[2])).reshape(out.shape)
    return unit * vectors.any(axis=2, keepdims=True)


def _scaled(vectors: Float32) -> Float32:
    scaled: Float32 = np.float32(vectors.shape[-1] ** 0.5) * vectors
    return scaled
