"""A mixture of experts over the fields of documents: how a query is compared with documents of which any field may be missing."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.learned_parts import LEAST_LOG_WEIGHT, SimilarityConfig


class GatedUnits(nn.Module):
    """F gated embedding units side by side: z = Wx + b, then z ∘ σ(Vz + c), at unit length.

    They start as the identity: W is the unit matrix, all else zero, so that every gate is ½. A vector of zeros stays zeros.
    Source: Miech et al. 2018, https://arxiv.org/abs/1804.02516, gated embedding module.
    """

    def __init__(self, num_fields: int, embedding_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(embedding_size).repeat(num_fields, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num_fields, embedding_size))
        self.gate = nn.Parameter(torch.zeros(num_fields, embedding_size, embedding_size))
        self.gate_bias = nn.Parameter(torch.zeros(num_fields, embedding_size))

    def forward(self, vectors: Tensor) -> Tensor:
        """Put vectors of field f through unit f: (..., F, E) -> (..., F, E)."""
        inner = torch.einsum("...fe,fae->...fa", vectors, self.weight) + self.bias
        gates = torch.sigmoid(torch.einsum("...fe,fae->...fa", inner, self.gate) + self.gate_bias)
        return F.normalize(inner * gates, dim=-1) * vectors.any(dim=-1, keepdim=True)


class FieldExperts(nn.Module):
    """The similarity Σ w_f(q) cos(q_f, d_f) / Σ w_f(q), both sums over the fields f that the document has.

    q_f and d_f are what the field's expert makes of the sentence vectors of the query and of the field's text; the weights w(q) are a
    softmax over fields that the query decides, which so renormalises over those that are there. A query is laid out as its w_f q_f side
    by side and a document as its d_f, zeros for those it lacks: the product of the two is the upper sum, and the lengths of the
    query's parts are the weights. A new one compares as the mean of the cosines.
    Source: Miech et al. 2018, https://arxiv.org/abs/1804.02516, mixture of embedding experts, and its weights without missing experts.
    """

    def __init__(self, embedding_size: int, config: SimilarityConfig) -> None:
        super().__init__()
        self.config = config
        self.num_fields = len(config.fields)
        self.router = nn.Linear(embedding_size, self.num_fields, bias=False)
        nn.init.zeros_(self.router.weight)
        self.query_experts = GatedUnits(self.num_fields, embedding_size)
        self.document_experts = GatedUnits(self.num_fields, embedding_size)

    def queries(self, vectors: Tensor) -> Tensor:
        """Lay out queries for the comparison: (..., E) unit -> (..., F·E), at least in fp32."""
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = _scaled(vectors)
            log_weights = self.router(vectors).log_softmax(dim=-1).clamp(min=LEAST_LOG_WEIGHT)  # (..., F)
            repeated = vectors.unsqueeze(-2).expand(*log_weights.shape, vectors.shape[-1])  # (..., F, E)
            stacked: Tensor = log_weights.exp().unsqueeze(-1) * self.query_experts(repeated)
        return stacked.flatten(-2)

    def documents(self, vectors: Tensor) -> Tensor:
        """Lay out documents for the comparison: (..., F, E), zeros for a field that is missing -> (..., F·E), at least in fp32."""
        with torch.autocast(vectors.device.type, enabled=False):
            stacked: Tensor = self.document_experts(_scaled(vectors))
        return stacked.flatten(-2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Compare every query with every document, as laid out: (N, F·E), (M, F·E) -> (N, M); 0 with a document that has no field."""
        weights, present = self._weights(first), self._present(second)
        return first @ second.mT / _divisors(weights @ present.mT)

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """Compare each query with its document, as laid out: (..., F·E), (..., F·E) -> (...)."""
        weights, present = self._weights(first), self._present(second)
        return (first * second).sum(dim=-1) / _divisors((weights * present).sum(dim=-1))

    def _weights(self, queries: Tensor) -> Tensor:
        weights: Tensor = torch.linalg.vector_norm(self._blocks(queries), dim=-1)  # (..., F)
        return weights

    def _present(self, documents: Tensor) -> Tensor:
        return self._blocks(documents).any(dim=-1).to(documents.dtype)  # (..., F)

    def _blocks(self, stacked: Tensor) -> Tensor:
        return stacked.reshape(*stacked.shape[:-1], self.num_fields, -1)  # (..., F, E)


def _scaled(vectors: Tensor) -> Tensor:
    """Make the numbers of unit vectors as large as those that weights of the usual size are for."""
    wide = torch.promote_types(vectors.dtype, torch.float32)
    return math.sqrt(vectors.shape[-1]) * vectors.to(wide)


def _divisors(sums: Tensor) -> Tensor:
    """Where no weight is left, the product is 0 and stays it."""
    return sums.clamp(min=torch.finfo(sums.dtype).tiny)
