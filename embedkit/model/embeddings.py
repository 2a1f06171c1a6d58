"""What the first layer of an encoder reads: vectors of tokens, positions and token types."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from embedkit.model.config import EncoderConfig
from embedkit.model.dropout import dropout
from embedkit.model.norms import layer_norm


def sinusoidal_table(num_positions: int, size: int) -> Tensor:
    """Return sines and cosines of the positions, (P, D), divided by sqrt(D).

    The paper multiplies the token embeddings by sqrt(D) and adds this table undivided; the layer norm that follows
    makes the two equal, and this way the table can be stored as an ordinary position table.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, sections 3.4 and 3.5.
    """
    frequency = torch.exp(torch.arange(0, size, 2) * (-math.log(10_000.0) / size))
    angle = torch.arange(num_positions)[:, None] * frequency
    table = torch.empty(num_positions, size)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : size // 2]
    return table / math.sqrt(size)


class Embeddings(nn.Module):
    """Sum token, position and token-type embeddings, then norm; ALBERT's narrow table is widened after the norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.embedding_size or config.hidden_size
        self.position_offset = config.position_offset
        self.tokens = nn.Embedding(config.vocab_size, size)
        self.positions = (
            nn.Embedding(config.max_position_embeddings, size) if config.has_position_table else None
        )
        if self.positions is not None and config.position == "sinusoidal":
            self.positions.weight.requires_grad_(False)
        self.token_types = nn.Embedding(config.type_vocab_size, size) if config.type_vocab_size else None
        self.norm = layer_norm(config, size) if config.embedding_norm else None
        self.scale = math.sqrt(config.hidden_size) if config.scale_embeddings else 1.0
        self.dropout = config.hidden_dropout_prob
        self.projection = None if config.embedding_size is None else nn.Linear(size, config.hidden_size)

    def forward(self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        embedded: Tensor = self.tokens(input_ids)
        if self.token_types is not None:
            # Most input is of type 0 throughout: one row to add instead of one to look up for every token.
            embedded = embedded + (
                self.token_types.weight[0] if token_type_ids is None else self.token_types(token_type_ids)
            )
        if self.positions is not None:
            embedded = embedded + self.positions(position_ids + self.position_offset)
        if self.scale != 1:
            embedded = embedded * self.scale
        if self.norm is not None:
            embedded = self.norm(embedded)
        embedded = dropout(embedded, self.dropout if self.training else 0.0)
        return embedded if self.projection is None else self.projection(embedded)
