"""Pooling by learned attention over a sentence's tokens, by one aspect or several."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embedkit.model.attention_form import diversity_penalty
from embedkit.model.learned_parts import AttentionPoolingConfig


class AttentionPooling(nn.Module):
    """J distributions over the tokens of a sentence, A = softmax(W₂ tanh(W₁ h + b)), and the J means by them.

    With one aspect this is additive attention with a learned query (Yang et al. 2016, section 2.2; the paper below has no b). Where
    `watched` is a list, each pass in training appends the ‖AAᵀ - I‖² of its sentences to it, (B,).
    Source: Lin et al. 2017, https://arxiv.org/abs/1703.03130, eq. 6 to 8.
    """

    def __init__(self, hidden_size: int, config: AttentionPoolingConfig) -> None:
        super().__init__()
        self.config = config
        self.inner = nn.Linear(hidden_size, config.size)
        self.aspects = nn.Linear(config.size, config.aspects, bias=False)
        self.watched: list[Tensor] | None = None

    def forward(self, token_embeddings: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Pool a padded batch; a sentence without tokens becomes zeros.

        Shapes:
            token_embeddings: (B, T, D); attention_mask: (B, T) bool, None where every token is real
            returns: (B, D) or, concatenated, (B, J·D), of the input's dtype
        """
        weights = self.weights(token_embeddings, attention_mask)
        if self.watched is not None and self.training:
            self.watched.append(diversity_penalty(weights))
        with torch.autocast(token_embeddings.device.type, enabled=False):  # as the mean is taken
            pooled = (weights @ token_embeddings.to(weights.dtype)).to(token_embeddings.dtype)  # (B, J, D)
        return pooled.mean(dim=1) if self.config.combine == "mean" else pooled.flatten(1)

    def weights(self, token_embeddings: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return the distributions, (B, J, T), at least in fp32."""
        scores: Tensor = self.aspects(torch.tanh(self.inner(token_embeddings))).mT
        wide = torch.promote_types(scores.dtype, torch.float32)
        if attention_mask is None:
            return scores.softmax(dim=-1, dtype=wide)
        hidden = ~attention_mask[:, None, :]
        # Where nothing is left a softmax over -inf would be NaN: all that is hidden is set to 0 afterwards instead.
        lowest = torch.finfo(wide).min
        return scores.to(wide).masked_fill(hidden, lowest).softmax(dim=-1).masked_fill(hidden, 0.0)
