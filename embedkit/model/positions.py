"""Where tokens stand, as attention sees it: bucketed distances (MPNet) and rotated queries and keys (ModernBERT)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def relative_position_buckets(
    length: int, *, num_buckets: int, device: torch.device, max_distance: int = 128
) -> Tensor:
    """Number the distances between two positions: near ones each, far ones by their logarithm.

    Shapes:
        returns: (T, T) long in [0, num_buckets); row i, column j is the bucket of key j seen from query i
    Source: Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.1; MPNet uses it unchanged.
    """
    # On the CPU: 16, 32, 64 and 128 lie on borders of buckets, where another device may round to the other side.
    distance = torch.arange(1 - length, length)
    half = num_buckets // 2
    exact = half // 2
    far = exact + (
        torch.log(distance.abs().clamp(min=1).float() / exact)
        / math.log(max_distance / exact)
        * (half - exact)
    ).long().clamp(max=half - exact - 1)
    buckets = torch.where(distance.abs() < exact, distance.abs(), far) + half * (distance > 0)  # (2T - 1,)
    position = torch.arange(length, device=device)
    return buckets.to(device)[position[None, :] - position[:, None] + length - 1]


def rotary_table(
    length: int, *, head_size: int, theta: float, device: torch.device, factor: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return cos and sin of the rotation angles, each (T, d) float32; positions are divided by `factor`.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, eq. 34, in the form with halves instead of pairs.
    """
    frequency = theta ** (-torch.arange(0, head_size, 2, device=device, dtype=torch.float32) / head_size)
    if factor != 1:
        frequency = frequency / factor
    angle = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequency  # (T, d/2)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate queries or keys (..., T, d) by their positions; computed in fp32."""
    cos, sin = table
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)
