"""From token vectors to weights of terms without ever holding all logits, forwards and backwards.

A stretch of the vocabulary at a time, the logits of all tokens are computed and pooled. Backwards they are computed again where the pooling
needs them: with the maximum only the token that had it has a gradient, and its number was kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedkit.model.sparse_config import TermPooling

BLOCK_LOGITS = 2**22  # at a time: 16 MiB in fp32


def pool_terms(
    inner: Tensor, table: Tensor, bias: Tensor, lengths: Sequence[int], pooling: TermPooling
) -> Tensor:
    """Return the weight of each term for each of B sequences.

    Shapes:
        inner: (N, D), N = sum(lengths); table: (V, D); bias: (V,)
        returns: (B, V) float32, none below 0
    """
    counts = torch.tensor(lengths, device=inner.device)
    owners = torch.repeat_interleave(counts)  # (N,)
    if pooling.strategy == "max":
        # Looked up, not decided within: there autograd is off.
        wants = torch.is_grad_enabled() and (inner.requires_grad or table.requires_grad)
        logits: Tensor = _MaxLogits.apply(inner, table, bias, owners, (len(lengths), wants))  # type: ignore[no-untyped-call] # torch leaves it untyped
        return activate(logits.float(), pooling)
    blocks = [
        _sum_block(inner, table[part], bias[part], owners, len(lengths), pooling)
        for part in _stretches(len(table), len(inner))
    ]
    return torch.cat(blocks, dim=1)


def activate(logits: Tensor, pooling: TermPooling) -> Tensor:
    """Apply log(1 + ReLU(x)), once or twice."""
    values = logits.relu().log1p()
    return values.log1p() if pooling.activation == "log1p_relu" else values


def _sum_block(
    inner: Tensor, table: Tensor, bias: Tensor, owners: Tensor, count: int, pooling: TermPooling
) -> Tensor:
    values = activate(F.linear(inner, table, bias).float(), pooling)
    return values.new_zeros(count, values.shape[1]).index_add(0, owners, values)


def _stretches(vocab_size: int, num_tokens: int) -> list[slice]:
    step = max(64, BLOCK_LOGITS // max(1, num_tokens))
    return [slice(first, first + step) for first in range(0, vocab_size, step)]


class _MaxLogits(torch.autograd.Function):
    """The largest logit of each term in each sequence, and its gradient through the token that has it (of several: the first)."""

    @staticmethod
    # Any: the context of torch's own functions is untyped
    def forward(
        ctx: Any,
        inner: Tensor,
        table: Tensor,
        bias: Tensor,
        owners: Tensor,
        how: tuple[int, bool],  # how many sequences; whether gradients are wanted
    ) -> Tensor:
        count, wants = how
        found = inner.new_full((count, len(table)), float("-inf"))
        tokens = torch.empty(count, len(table) if wants else 0, dtype=torch.int32, device=inner.device)
        numbers = torch.arange(len(inner), device=inner.device)[:, None]  # (N, 1)
        for part in _stretches(len(table), len(inner)):
            logits = F.linear(inner, table[part], bias[part])  # (N, step)
            rows = owners[:, None].expand_as(logits)
            best = found[:, part].scatter_reduce(0, rows, logits, "amax")  # (B, step)
            found[:, part] = best
            if not wants:
                continue
            others = torch.where(logits == best[owners], numbers, len(inner))
            first = torch.full_like(best, len(inner), dtype=torch.long).scatter_reduce(
                0, rows, others, "amin"
            )
            tokens[:, part] = first.int()
        ctx.save_for_backward(inner, table, tokens, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        inner, table, tokens, found = ctx.saved_tensors
        # Below 0 the weight is 0, and so is the gradient that comes here.
        grad = torch.where(found > 0, grad, 0)
        of_inner, of_table = torch.zeros_like(inner), torch.empty_like(table)
        for part in _stretches(len(table), len(inner)):
            of_logits = inner.new_zeros(len(inner), table[part].shape[0])  # (N, step)
            of_logits.scatter_add_(0, tokens[:, part].long(), grad[:, part].to(inner.dtype))
            of_inner += of_logits @ table[part]
            of_table[part] = of_logits.T @ inner
        return of_inner, of_table, grad.sum(0).to(inner.dtype), None, None
