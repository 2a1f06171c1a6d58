"""What attention computes of queries, keys and values where it is not, or not only, torch's scaled dot product."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from embedkit.model.additive import additive_scores
from embedkit.model.config import EncoderConfig
from embedkit.model.dropout import dropout
from embedkit.model.linear_attention import (
    low_rank,
    orthogonal_features,
    random_feature_attention,
    random_feature_weights,
)
from embedkit.model.relative_positions import relative_scores, relative_values
from embedkit.model.shapes import attention_shapes


class AttentionForm(nn.Module):
    """One form of attention, with what it has besides the projections; the plain one has nothing, and is here for its weights.

    Where `watched` is a list, each pass in training appends the ‖AAᵀ - I‖² of every token's heads to it, (count·T,) a run: the
    penalty that makes heads differ.

    Axes: `count` sequences of T tokens, H heads, d head size.
    """

    # See `attention_shapes`, which says which of them there are.
    score: nn.Parameter
    relative_keys: nn.Parameter
    relative_values: nn.Parameter
    low_rank_keys: nn.Parameter
    low_rank_values: nn.Parameter
    features: nn.Parameter

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.kind, self.head_size, self.scale = config.attention, config.head_size, config.attention_scale
        self.relative = config.position == "relative"
        for name, shape in attention_shapes(config).items():
            trained = name != "features"  # those are drawn once
            self.register_parameter(name, nn.Parameter(torch.empty(shape), requires_grad=trained))
        self.watched: list[Tensor] | None = None

    @property
    def watches(self) -> bool:
        return self.watched is not None and self.training

    @property
    def fused(self) -> bool:
        """Say whether torch's fused attention, or ours by hand, computes it; a bilinear form turns its queries first."""
        return self.kind in ("dot", "bilinear") and not self.relative and not self.watches

    def reset_parameters(self, std: float) -> None:
        """Draw what there is; a bilinear form starts as the dot product."""
        if self.relative:
            for table in (self.relative_keys, self.relative_values):
                nn.init.trunc_normal_(table, std=std, a=-2 * std, b=2 * std)
        match self.kind:
            case "additive":
                nn.init.normal_(self.score, std=self.head_size**-0.5)
            case "bilinear":
                with torch.no_grad():
                    self.score.copy_(torch.eye(self.head_size).expand_as(self.score))
            case "low_rank":  # Wang et al. 2020, theorem 1
                for mixtures in (self.low_rank_keys, self.low_rank_values):
                    nn.init.normal_(mixtures, std=len(mixtures) ** -0.5)
            case "random_features":
                with torch.no_grad():
                    self.features.copy_(orthogonal_features(*self.features.shape, like=self.features))

    def turned(self, projected: Tensor) -> Tensor:
        """Turn the queries of a bilinear form by its weights, q W: (N, 3D) -> (N, 3D); q W k is a dot product from there on.

        Source: Luong et al. 2015, https://arxiv.org/abs/1508.04025, eq. 8 ("general"), for each head.
        """
        size = projected.shape[1] // 3
        query, rest = torch.split(projected, [size, 2 * size], dim=1)
        heads = query.view(len(query), -1, self.head_size).transpose(0, 1)  # (H, N, d)
        turned = (heads @ self.score).transpose(0, 1).reshape(len(query), size)
        return torch.cat((turned.to(rest.dtype), rest), dim=1)

    def forward(
        self,
        projections: tuple[Tensor, Tensor, Tensor],
        *,
        mask: Tensor | None,
        attention_mask: Tensor | None,
        probability: float,
    ) -> Tensor:
        """Attend within the sequences of a run.

        Shapes:
            projections: query, key and value, (count, H, T, d) each; attention_mask: (count, T) bool, True = real token
            mask: what broadcasts to (count, H, T, T), bool or to be added; it holds `attention_mask` already
            returns: (count, H, T, d)
        """
        query, key, value = projections
        if self.kind == "random_features":  # there are no weights that dropout could drop
            return random_feature_attention(query, key, value, self.features, attention_mask)
        if self.kind == "low_rank":
            key = low_rank(key, self.low_rank_keys, attention_mask)
            value = low_rank(value, self.low_rank_values, attention_mask)
            mask = None
        weights = self._weights(query, key, mask)
        if self.watched is not None and self.training:
            # Each token's heads: (count, T, H, S) -> (count·T,)
            self.watched.append(diversity_penalty(weights.transpose(1, 2)).flatten())
        weights = dropout(weights, probability)
        context = weights.to(value.dtype) @ value
        if self.relative:
            context = context + relative_values(weights, self.relative_values).to(value.dtype)
        return context

    def weights(
        self, query: Tensor, key: Tensor, *, mask: Tensor | None, attention_mask: Tensor | None
    ) -> Tensor:
        """Return the attention probabilities, (count, H, T, T): rows are queries and sum to 1.

        Raises:
            ValueError: tokens attend to mixtures of tokens, so that there are none.
        """
        if self.kind == "low_rank":
            raise ValueError("low-rank attention weighs mixtures of tokens; no token has a weight of its own")
        if self.kind == "random_features":
            return random_feature_weights(query, key, self.features, attention_mask)
        return self._weights(query, key, mask)

    def _weights(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        """Return the softmax of the scores, (count, H, T, S), at least in fp32."""
        if self.kind == "additive":
            scores = additive_scores(query, key, self.score)
        else:
            scores = query @ key.mT
            if self.relative:
                scores = scores + relative_scores(query, self.relative_keys)
            scores = scores * self.scale
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def diversity_penalty(weights: Tensor) -> Tensor:
    """Return ‖AAᵀ - I‖² of sets of J distributions over S places: small where they are sharp and apart from one another.

    Shapes:
        weights: (..., J, S), rows of each A sum to 1
        returns: (...)
    Source: Lin et al. 2017, https://arxiv.org/abs/1703.03130, eq. 8.
    """
    products = weights @ weights.mT  # (..., J, J)
    unit = torch.eye(products.shape[-1], dtype=products.dtype, device=products.device)
    return (products - unit).square().sum(dim=(-2, -1))
