"""Attention with its gradient written by hand, for training on a CPU: few passes over memory, and little kept.

Of each sequence only the softmax and dropout's random bits are kept beside the projections. Sequences go through in groups whose
scores stay in the second-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedkit.model.dropout import draw_bits, kept, kept_scale

GROUP_SCORES = 2**18  # scores that go through together: 1 MiB in fp32

Group = tuple[slice, int, int]  # rows of the packed tokens; sequences and their length


def attend_packed(
    projected: Tensor, counts: Sequence[tuple[int, int]], *, num_heads: int, dropout: float
) -> Tensor:
    """Let every token of packed sequences attend to all of its sequence.

    Shapes:
        projected: (N, 3D), queries, keys and values, each of all heads
        counts: how many sequences of which length lie one after another
        returns: (N, D)
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1; dropout of the softmax as in BERT.
    """
    context: Tensor = _Attention.apply(projected, tuple(counts), num_heads, dropout)  # type: ignore[no-untyped-call] # torch leaves it untyped
    return context


def groups_of(counts: Sequence[tuple[int, int]], num_heads: int) -> Iterator[Group]:
    """Cut runs of sequences of one length into groups of few scores."""
    start = 0
    for count, length in counts:
        size = max(1, GROUP_SCORES // (num_heads * length * length))
        for first in range(0, count, size):
            number = min(size, count - first)
            yield slice(start, start + number * length), number, length
            start += number * length


def _heads(rows: Tensor, count: int, length: int, num_heads: int, parts: int) -> Tensor:
    """Turn (count·T, parts·D) into (parts, count·H, T, d); where there is one sequence this copies nothing."""
    wide = rows.view(count, length, parts, num_heads, -1).permute(2, 0, 3, 1, 4)  # (parts, count, H, T, d)
    return wide.reshape(parts, count * num_heads, length, -1)


class _Attention(torch.autograd.Function):
    @staticmethod
    # Any: the context of torch's own functions is untyped
    def forward(
        ctx: Any, projected: Tensor, counts: tuple[tuple[int, int], ...], num_heads: int, dropout: float
    ) -> Tensor:
        ctx.counts, ctx.num_heads, ctx.dropout = counts, num_heads, dropout
        context = projected.new_empty(len(projected), projected.shape[1] // 3)
        saved = [projected]
        for rows, count, length in groups_of(counts, num_heads):
            query, key, value = _heads(projected[rows], count, length, num_heads, 3)
            scores = query.new_empty(len(query), length, length)
            scores.baddbmm_(query, key.mT, beta=0, alpha=1 / math.sqrt(query.shape[-1]))
            softmax = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
            saved.append(softmax)
            weights, scale = softmax, 1.0
            if dropout:
                bits = draw_bits(softmax.shape)
                saved.append(bits)
                weights, scale = (
                    kept(bits, dropout, torch.empty_like(softmax)).mul_(softmax),
                    kept_scale(dropout),
                )
            mixed = torch.empty_like(query, memory_format=torch.contiguous_format)
            mixed.baddbmm_(weights.to(value.dtype), value, beta=0, alpha=scale)  # (count·H, T, d)
            to = context[rows].view(count, length, num_heads, -1)
            to.copy_(mixed.view(count, num_heads, length, -1).transpose(1, 2))
        ctx.save_for_backward(*saved)
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        projected, *kept_of_groups = ctx.saved_tensors
        saved = iter(kept_of_groups)
        of_projected = torch.empty_like(projected)
        for rows, count, length in groups_of(ctx.counts, ctx.num_heads):
            query, key, value = _heads(projected[rows], count, length, ctx.num_heads, 3)
            (mixed,) = _heads(gradient[rows], count, length, ctx.num_heads, 1)
            softmax = weights = next(saved)
            scale = 1.0
            of_weights = mixed @ value.mT  # what the dropped weights pass on: (count·H, T, T)
            if ctx.dropout:
                mask = kept(next(saved), ctx.dropout, torch.empty_like(softmax))
                of_weights = of_weights * mask
                weights, scale = mask.mul_(softmax), kept_scale(ctx.dropout)
            of_softmax = of_weights.to(softmax.dtype)
            of_scores = torch._softmax_backward_data(of_softmax, softmax, -1, softmax.dtype).to(query.dtype)
            factor = scale / math.sqrt(query.shape[-1])
            found = query.new_empty(3, *query.shape)
            found[0].baddbmm_(of_scores, key, beta=0, alpha=factor)
            found[1].baddbmm_(of_scores.mT, query, beta=0, alpha=factor)
            found[2].baddbmm_(weights.to(mixed.dtype).mT, mixed, beta=0, alpha=scale)
            to = of_projected[rows].view(count, length, 3, ctx.num_heads, -1)
            to.copy_(found.view(3, count, ctx.num_heads, length, -1).permute(1, 3, 0, 2, 4))
        return of_projected, None, None, None
