"""Additive scores of queries and keys, with a gradient that keeps none of the sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

GROUP_NUMBERS = 2**20  # of tanh(q + k) that are there together: 4 MiB in fp32


def additive_scores(query: Tensor, key: Tensor, score: Tensor) -> Tensor:
    """Return v · tanh(q_i + k_j) for every query and key; few of the sums are there at a time.

    Query and key are projected already, so that this is v · tanh(W h_i + U h_j + b).

    Shapes:
        query: (C, H, T, d); key: (C, H, S, d); score: (H, d)
        returns: (C, H, T, S)
    Source: Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, appendix A.1.2.
    """
    found: Tensor = _AdditiveScores.apply(query, key, score)  # type: ignore[no-untyped-call] # torch leaves it untyped
    return found


class _AdditiveScores(torch.autograd.Function):
    @staticmethod
    # Any: the context of torch's own functions is untyped
    def forward(ctx: Any, query: Tensor, key: Tensor, score: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, score)
        found = query.new_empty(*query.shape[:-1], key.shape[-2])
        for part in _parts(query, key):
            found[:, :, part] = (_tanh_of_sums(query[:, :, part], key) @ score[:, None, :, None])[..., 0]
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, score = ctx.saved_tensors
        of_query, of_key = torch.empty_like(query), torch.zeros_like(key)
        of_score = torch.zeros_like(score)
        for part in _parts(query, key):
            inner = _tanh_of_sums(query[:, :, part], key)  # (C, H, t, S, d), computed again
            weighted = gradient[:, :, part, :, None]
            of_score += (inner * weighted).sum(dim=(0, 2, 3))
            of_sums = (1 - inner.square()).mul_(weighted).mul_(score[:, None, None])
            of_query[:, :, part] = of_sums.sum(dim=-2)
            of_key += of_sums.sum(dim=-3)
        return of_query, of_key, of_score


def _parts(query: Tensor, key: Tensor) -> list[slice]:
    """Cut the queries into parts of which not too many sums with keys come."""
    size = max(1, GROUP_NUMBERS // max(1, key.numel()))
    return [slice(start, start + size) for start in range(0, query.shape[-2], size)]


def _tanh_of_sums(query: Tensor, key: Tensor) -> Tensor:
    return (query[..., :, None, :] + key[..., None, :, :]).tanh_()
