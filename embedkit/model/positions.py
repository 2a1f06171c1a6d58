"""Where tokens stand, as attention sees it: distances (MPNet, Jina v2) and rotated queries and keys (ModernBERT)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from embedkit.model.attention_config import alibi_slopes
from embedkit.model.rope_config import RopeScalingConfig


def relative_position_buckets(
    length: int,
    *,
    num_buckets: int,
    device: torch.device,
    max_distance: int = 128,
    causal: bool = False,
    num_queries: int | None = None,
) -> Tensor:
    """Number the distances between two positions: near ones each, far ones by their logarithm.

    Half of the buckets are for keys after the query; with `causal` all are for those before it, and later ones share that of the query.
    `num_queries` asks for the last so many queries alone; None: all T.

    Shapes:
        returns: (Q, T) long in [0, num_buckets); row i, column j is the bucket of key j seen from query i
    Source: Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.1; MPNet uses it unchanged.
    """
    # On the CPU: 16, 32, 64 and 128 lie on borders of buckets, where another device may round to the other side.
    distance = torch.arange(1 - length, length)
    half = num_buckets if causal else num_buckets // 2
    if causal:
        distance = distance.clamp(max=0)
    exact = half // 2
    far = exact + (
        torch.log(distance.abs().clamp(min=1).float() / exact)
        / math.log(max_distance / exact)
        * (half - exact)
    ).long().clamp(max=half - exact - 1)
    buckets = torch.where(distance.abs() < exact, distance.abs(), far) + half * (distance > 0)  # (2T - 1,)
    position = torch.arange(length, device=device)
    queries = position if num_queries is None else position[length - num_queries :]
    return buckets.to(device)[position[None, :] - queries[:, None] + length - 1]


def alibi_scores(length: int, *, num_heads: int, device: torch.device) -> Tensor:
    """Return what a key's distance to either side takes off the score of each head: (H, T, T) float32, 0 on the diagonal.

    Source: Press et al. 2022, https://arxiv.org/abs/2108.12409, section 3, for both sides as in Günther et al. 2023,
    https://arxiv.org/abs/2310.19923, section 4.
    """
    position = torch.arange(length, device=device, dtype=torch.float32)
    slopes = torch.tensor(alibi_slopes(num_heads), device=device, dtype=torch.float32)
    return -slopes[:, None, None] * (position[None, :] - position[:, None]).abs()


def rotary_table(
    length: int,
    *,
    head_size: int,
    theta: float,
    device: torch.device,
    factor: float = 1.0,
    scaling: RopeScalingConfig | None = None,
    scaled_for: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return cos and sin of the rotation angles, each (T, d) float32; positions are divided by `factor`, or scaled unequally.

    What is scaled by a text's length is scaled for `scaled_for` tokens; None: for `length`.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, eq. 34, in the form with halves instead of pairs.
    """
    if scaling is not None and scaling.kind == "dynamic":
        theta = _dynamic_theta(theta, scaled_for or length, head_size=head_size, scaling=scaling)
    frequency = theta ** (-torch.arange(0, head_size, 2, device=device, dtype=torch.float32) / head_size)
    if factor != 1:
        frequency = frequency / factor
    if scaling is not None:
        frequency = scaling.scaled(frequency, theta=theta)
    angle = torch.arange(length, device=device, dtype=torch.float32)[:, None] * frequency  # (T, d/2)
    angle = torch.cat((angle, angle), dim=-1)
    if scaling is None:
        return angle.cos(), angle.sin()
    return angle.cos() * scaling.attention_factor, angle.sin() * scaling.attention_factor


def _dynamic_theta(theta: float, length: int, *, head_size: int, scaling: RopeScalingConfig) -> float:
    """Return the base of the frequencies for a text of `length` tokens: a larger one where it is longer than the first length.

    Source: `RopeScalingConfig`, "dynamic".
    """
    longer = max(length / scaling.original_max_position_embeddings, 1.0)
    stretch = scaling.factor * longer - (scaling.factor - 1)
    return float(theta * stretch ** (head_size / (head_size - 2)))


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate queries or keys (..., T, d) by their positions; computed in fp32."""
    cos, sin = table
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)
