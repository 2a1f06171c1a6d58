"""A learned sparse model as it is trained: masked language model, pooling of its logits, and perhaps weights for queries' tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from embedkit.model.encoder import TransformerEncoder
from embedkit.model.filling import fill_up
from embedkit.model.heads import MaskedLMHead
from embedkit.model.sparse_config import TermPooling
from embedkit.model.term_pooling import pool_terms


class SparseModel(nn.Module):
    """SPLADE: packed tokens -> (B, V), none below 0; with `query_weights` (V,) queries are computed from these alone.

    Source: Formal et al. 2021, https://arxiv.org/abs/2107.05720; queries without a model: Geng et al. 2024,
    https://arxiv.org/abs/2411.04403.
    """

    def __init__(
        self,
        encoder: TransformerEncoder,
        mlm: MaskedLMHead,
        pooling: TermPooling,
        *,
        query_weights: Tensor | None = None,
        special: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.special = tuple(special)
        self.encoder, self.mlm, self.pooling = encoder, mlm, pooling
        self.query_weights = None if query_weights is None else nn.Parameter(query_weights)

    @property
    def dimension(self) -> int:
        return self.encoder.config.vocab_size

    # What a `SentenceEncoder` may have, and this has not.
    attention_pooling = None
    similarity = None

    def forward_packed(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        token_type_ids: Tensor | None = None,
        *,
        skip: int = 0,
    ) -> Tensor:
        """Weigh the vocabulary for each of B sequences: (N,), N = sum(lengths) -> (B, V).

        No token is left out: with a `skip`, the sequences are queries, and their tokens alone weigh something.
        """
        if skip:
            return self.weigh_queries(input_ids, lengths)
        count = len(lengths)
        max_tokens = self.encoder.config.max_tokens
        filled, lengths, types = fill_up(input_ids, lengths, token_type_ids, max_tokens=max_tokens)
        hidden = self.encoder.forward_packed(filled, lengths, types)[: len(input_ids)]  # (N, D)
        lengths = lengths[:count]
        inner = self.mlm.transform(hidden)
        table = self.encoder.embeddings.tokens.weight
        return pool_terms(inner, table, self.mlm.bias, lengths, self.pooling)

    def weigh_queries(self, input_ids: Tensor, lengths: Sequence[int]) -> Tensor:
        """Give each token that a query holds, once, its weight, but for `special` ones: (N,) -> (Q, V)."""
        assert self.query_weights is not None
        owners = torch.repeat_interleave(torch.tensor(lengths, device=input_ids.device))
        there = torch.zeros(len(lengths), self.dimension, device=input_ids.device)
        there[owners, input_ids] = 1.0
        there[:, list(self.special)] = 0.0  # which stand around every text, and are left out of queries
        return there * self.query_weights
