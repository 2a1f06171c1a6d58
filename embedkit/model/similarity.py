"""How two sentence vectors are compared in training: by a product, or by weights that are trained with the encoder."""

from __future__ import annotations

import math
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.additive import additive_scores
from embedkit.model.field_experts import FieldExperts
from embedkit.model.learned_parts import LearnedKind, SimilarityConfig, SimilarityKind


class LearnedSimilarity(nn.Module):
    """What a similarity of unit vectors learns: W of uᵀWv (bilinear), which starts as the unit matrix, or W, U, b and s of
    s·tanh(√E (Wu + Uv) + b) (additive).

    The factor √E makes the numbers of unit vectors as large as those that weights of the usual size are for.
    Sources: Luong et al. 2015, https://arxiv.org/abs/1508.04025, eq. 8 ("general" and, with W and U side by side, "concat");
        Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, appendix A.1.2.
    """

    def __init__(self, embedding_size: int, config: SimilarityConfig) -> None:
        super().__init__()
        self.config = config
        if config.kind == "bilinear":
            self.weight = nn.Parameter(torch.eye(embedding_size))
        else:
            self.first = nn.Linear(embedding_size, config.size)
            self.second = nn.Linear(embedding_size, config.size, bias=False)
            for linear in (self.first, self.second):
                nn.init.normal_(linear.weight, std=embedding_size**-0.5)
            nn.init.zeros_(self.first.bias)
            self.score = nn.Parameter(torch.randn(config.size) / config.size**0.5)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Compare every vector with every other: (N, E), (M, E) -> (N, M)."""
        if self.config.kind == "bilinear":
            return first @ self.weight @ second.mT
        query, key = self._projected(first, second)
        return additive_scores(query[None, None], key[None, None], self.score[None])[0, 0]

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """Compare each vector with its partner: (..., E), (..., E) -> (...)."""
        if self.config.kind == "bilinear":
            return (first @ self.weight * second).sum(dim=-1)
        query, key = self._projected(first, second)
        return torch.tanh(query + key) @ self.score

    def _projected(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        scale = math.sqrt(first.shape[-1])
        return self.first(scale * first), self.second(scale * second)


class Similarity:
    """One of six ways to compare vectors, with those functions that losses ask for.

    cosine: uᵀv of unit vectors; dot: uᵀv; scaled: uᵀv / √E (Vaswani et al. 2017, section 3.2.1); and the learned ones, of which that of
    fields compares what its `queries` and `documents` give.
    """

    def __init__(
        self, kind: SimilarityKind | LearnedKind, learned: LearnedSimilarity | FieldExperts | None = None
    ) -> None:
        """`learned` holds the weights of a learned one.

        Raises:
            ValueError: it is missing, or of another kind.
        """
        wanted = kind if kind in get_args(LearnedKind) else None
        if wanted != (None if learned is None else learned.config.kind):
            raise ValueError(f"similarity {kind!r} goes with weights of its own kind alone")
        self.kind, self.learned = kind, learned

    @property
    def experts(self) -> FieldExperts | None:
        """What lays out queries and documents, where these have fields."""
        return self.learned if isinstance(self.learned, FieldExperts) else None

    def matrix(self, first: Tensor, second: Tensor) -> Tensor:
        """Compare every vector with every other: (N, E), (M, E) -> (N, M)."""
        first, second = self._as_compared(first), self._as_compared(second)
        if self.learned is not None:
            compared: Tensor = self.learned(first, second)
            return compared
        return first @ second.mT / self._divisor(first)

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """Compare each vector with its partner: (..., E), (..., E) -> (...)."""
        first, second = self._as_compared(first), self._as_compared(second)
        if self.learned is not None:
            return self.learned.pairs(first, second)
        return (first * second).sum(dim=-1) / self._divisor(first)

    def _as_compared(self, vectors: Tensor) -> Tensor:
        return vectors if self.kind in ("dot", "scaled", "fields") else F.normalize(vectors, dim=-1)

    def _divisor(self, vectors: Tensor) -> float:
        return math.sqrt(vectors.shape[-1]) if self.kind == "scaled" else 1.0
