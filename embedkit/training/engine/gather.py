"""Gather embeddings across ranks, with gradients, so that each rank has the negatives of all."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(rows: Tensor) -> Tensor:
    """Put the rows of all ranks one after another, in rank order; without a process group, return them as they are.

    Backward is the exact adjoint: each rank receives the sum over ranks of the gradients of its own rows. So, where
    gradients of parameters are then *averaged* over ranks (as DistributedDataParallel does), both of these give the
    gradient that one process with the whole batch would have:
    - every rank computes the loss of the whole gathered batch (works for every loss, and is the simplest), or
    - every rank computes the mean over its own queries against the documents of all.
    Gather queries, positives and negatives each by themselves, and join them afterwards.

    Shapes:
        rows: (B, ...), alike on all ranks
        returns: (ranks * B, ...)
    Raises:
        ValueError: ranks hold tensors of different shapes.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    _check_equal_shapes(rows)
    gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # Any: torch's context takes arbitrary attributes
        parts = [
            torch.empty_like(rows, memory_format=torch.contiguous_format)
            for _ in range(dist.get_world_size())
        ]
        dist.all_gather(parts, rows.contiguous())
        ctx.num_rows = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # Any: as above
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        start = dist.get_rank() * ctx.num_rows
        return total[start : start + ctx.num_rows]


def _check_equal_shapes(rows: Tensor) -> None:
    """Compare shapes over all ranks, for a collective on unequal ones would hang or mix up rows."""
    dims_per_shape = 8
    if rows.dim() > dims_per_shape:
        raise ValueError(
            f"gather_rows: a tensor of {rows.dim()} dimensions; at most {dims_per_shape} are supported"
        )
    padded = list(rows.shape) + [-1] * (dims_per_shape - rows.dim())
    mine = torch.tensor(padded, dtype=torch.long, device=rows.device)
    shapes = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(shapes, mine)
    if any(bool((shape != mine).any()) for shape in shapes):
        listed = ", ".join(
            f"rank {rank}: {tuple(n for n in shape.tolist() if n >= 0)}" for rank, shape in enumerate(shapes)
        )
        raise ValueError(
            f"gather_rows: shapes differ over ranks ({listed}); give every rank a batch of one size"
        )
