"""From one vector a token to one vector a sentence: pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from embedkit.model.config import PoolingMode


def pool(token_embeddings: Tensor, attention_mask: Tensor | None, mode: PoolingMode) -> Tensor:
    """Reduce the token vectors of each sentence to one.

    `mean` averages the real tokens, `cls` takes the first real one, `max` the largest value of each dimension, `last` the last
    real token; `weighted_mean` weighs token i (from 1) by i (Muennighoff 2022, https://arxiv.org/abs/2202.08904, eq. 2);
    `mean_sqrt_len` divides the sum by the square root of the length. Sums are taken in fp32.

    Shapes:
        token_embeddings: (B, T, D); attention_mask: (B, T) bool, None where every token is real
        returns: (B, D), of the input's dtype
    """
    batch, length, _ = token_embeddings.shape
    if mode == "cls":
        if attention_mask is None:
            return token_embeddings[:, 0]
        first = attention_mask.long().argmax(dim=1)  # (B,) also with padding on the left
        return token_embeddings[torch.arange(batch, device=first.device), first]
    if attention_mask is None:
        attention_mask = torch.ones(batch, length, dtype=torch.bool, device=token_embeddings.device)
    if mode == "max":
        return token_embeddings.masked_fill(~attention_mask[:, :, None], -torch.inf).amax(dim=1)
    if mode == "last":
        last = length - 1 - attention_mask.flip(1).long().argmax(dim=1)  # (B,) also with padding on the left
        return token_embeddings[torch.arange(batch, device=last.device), last]
    weights = attention_mask.float()  # (B, T)
    if mode == "weighted_mean":
        weights = weights * torch.arange(1, length + 1, device=weights.device)
    total = weights.sum(dim=1, keepdim=True).clamp(min=1)
    if mode == "mean_sqrt_len":
        total = total.sqrt()
    # Autocast would round both to half precision.
    with torch.autocast(token_embeddings.device.type, enabled=False):
        # (B, 1, T) @ (B, T, D) -> (B, D)
        pooled = torch.bmm((weights / total)[:, None, :], token_embeddings.float())[:, 0]
    return pooled.to(token_embeddings.dtype)
