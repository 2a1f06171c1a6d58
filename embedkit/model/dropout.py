"""Dropout on a CPU: 16 random bits a number decide, and are all that is kept for the gradient.

torch draws dropout's masks on a CPU as floats, one after another, and keeps them: the draws took a tenth of a training step.
Here four numbers share one 64-bit draw of torch's default generator, so a seed decides as before. Elsewhere torch's own is used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LEVELS = 2**16  # the probability is rounded to a multiple of 1 / LEVELS; 0.1 becomes 0.1000061


def dropout(x: Tensor, probability: float, *, residual: Tensor | None = None) -> Tensor:
    """Set numbers to 0 with a probability and divide the others by its complement; then add `residual`, of the same shape.

    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html, section 10 for the division.
    """
    if probability == 0 or x.device.type != "cpu":
        dropped = F.dropout(x, probability) if probability else x
        return dropped if residual is None else residual + dropped
    if residual is not None:
        x = x.to(residual.dtype)
    out: Tensor = _Dropout.apply(x, residual, probability)  # type: ignore[no-untyped-call] # torch leaves it untyped
    return out


def draw_bits(shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Draw int16 numbers, all alike likely."""
    size = torch.Size(shape).numel()
    draws = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None)
    return draws.view(torch.int16)[:size].view(shape)


def kept(bits: Tensor, probability: float, out: Tensor) -> Tensor:
    """Fill `out` with 1 where a number is kept and 0 where it is dropped."""
    return torch.ge(bits, _dropped_levels(probability) - LEVELS // 2, out=out)


def kept_scale(probability: float) -> float:
    """Return what numbers that are kept are multiplied by."""
    return LEVELS / (LEVELS - _dropped_levels(probability))


def _dropped_levels(probability: float) -> int:
    return min(round(probability * LEVELS), LEVELS - 1)


class _Dropout(torch.autograd.Function):
    @staticmethod
    # Any: the context of torch's own functions is untyped
    def forward(ctx: Any, x: Tensor, residual: Tensor | None, probability: float) -> Tensor:
        bits = draw_bits(x.shape)
        ctx.save_for_backward(bits)
        ctx.probability = probability
        mask = kept(bits, probability, torch.empty_like(x))
        added = x.new_zeros(()) if residual is None else residual
        return torch.addcmul(added, x, mask, value=kept_scale(probability))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (bits,) = ctx.saved_tensors
        mask = kept(bits, ctx.probability, torch.empty_like(gradient))
        of_x = mask.mul_(gradient).mul_(kept_scale(ctx.probability))
        return of_x, gradient if ctx.needs_input_grad[1] else None, None
