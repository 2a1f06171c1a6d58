"""The sentence encoder: a transformer, pooling, dense layers and normalization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.config import DenseActivation, HeadLayer, LayerNormConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.layers import runs_of, split_runs
from embedkit.model.pooling import pool

DENSE_ACTIVATIONS: dict[DenseActivation, type[nn.Module]] = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
}


class SentenceEncoder(nn.Module):
    """Encoder, pooling, dense layers, normalization: (B, T) token ids to (B, E) sentence vectors.

    Source: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, section 3.
    """

    def __init__(self, encoder: TransformerEncoder, config: SentenceConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        self.dense = nn.ModuleList(_layer(layer) for layer in config.dense)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Encode a padded batch: (B, T) -> (B, E)."""
        hidden = self.encoder(input_ids, attention_mask, token_type_ids)
        return self.head(self._pool(hidden, attention_mask))

    def forward_packed(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        token_type_ids: Tensor | None = None,
        *,
        skip: int = 0,
    ) -> Tensor:
        """Encode packed sequences: (N,) ids of B sequences -> (B, E).

        `skip` leaves the first tokens of every sequence out of the pooling: for models that do not pool their prompt.
        """
        hidden = self.encoder.forward_packed(input_ids, lengths, token_type_ids)  # (N, D)
        return self.pool_packed(hidden, lengths, skip=skip)

    def pool_packed(self, hidden: Tensor, lengths: Sequence[int], *, skip: int = 0) -> Tensor:
        """Reduce the token vectors of B packed sequences, (N, D), to sentence vectors, (B, E)."""
        pooled = []
        runs = runs_of(lengths)
        for piece, run in zip(split_runs(hidden, runs), runs, strict=True):
            tokens = piece.view(run.count, run.length, -1)
            mask = None
            if skip:
                mask = torch.ones(run.count, run.length, dtype=torch.bool, device=hidden.device)
                mask[:, :skip] = False
            pooled.append(self._pool(tokens, mask))
        return self.head(pooled[0] if len(pooled) == 1 else torch.cat(pooled))

    def _pool(self, token_embeddings: Tensor, attention_mask: Tensor | None) -> Tensor:
        return torch.cat(
            [pool(token_embeddings, attention_mask, mode) for mode in self.config.pooling], dim=-1
        )

    def head(self, pooled: Tensor) -> Tensor:
        """Apply the dense layers and the normalization to pooled vectors: (B, P) -> (B, E)."""
        for dense in self.dense:
            pooled = dense(pooled)
        # The norm is taken in fp32: in half precision vectors come out 0.1 % too long or too short.
        return F.normalize(pooled.float(), dim=-1).to(pooled.dtype) if self.config.normalize else pooled


def _layer(layer: HeadLayer) -> nn.Sequential:
    if isinstance(layer, LayerNormConfig):
        return nn.Sequential(nn.LayerNorm(layer.size, eps=layer.eps))
    linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
    return nn.Sequential(linear, DENSE_ACTIVATIONS[layer.activation]())
