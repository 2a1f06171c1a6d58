"""Relative positions: a vector for each distance between two tokens, up to a reach, beside their keys and values."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_distances(length: int, reach: int, device: torch.device) -> Tensor:
    """Number the distances from query i to key j: (T, T) long, clip(j - i, -reach, reach) + reach.

    Source: Shaw et al. 2018, https://arxiv.org/abs/1803.02155, eq. 2 and section 3.2.
    """
    position = torch.arange(length, device=device)
    return (position[None, :] - position[:, None]).clamp(-reach, reach) + reach


def relative_scores(query: Tensor, table: Tensor) -> Tensor:
    """Return what the vectors of the distances add to the scores, before they are scaled: q_i · a_ij.

    The product with all distances comes first, (C, H, T, 2·reach + 1), and each key takes its own of them.

    Shapes:
        query: (C, H, T, d); table: (2·reach + 1, d)
        returns: (C, H, T, T)
    Source: Shaw et al. 2018, eq. 4 and 5.
    """
    by_distance = query @ table.mT
    index = clipped_distances(query.shape[-2], table.shape[0] // 2, query.device)
    return by_distance.gather(-1, index.expand(*query.shape[:-1], -1))


def relative_values(weights: Tensor, table: Tensor) -> Tensor:
    """Return what the vectors of the distances add to the values: the sum over keys j of w_ij a_ij.

    Weights of one distance are added up first, (C, H, T, 2·reach + 1).

    Shapes:
        weights: (C, H, T, T); table: (2·reach + 1, d)
        returns: (C, H, T, d)
    Source: Shaw et al. 2018, eq. 3.
    """
    index = clipped_distances(weights.shape[-1], table.shape[0] // 2, weights.device)
    sums = weights.new_zeros(*weights.shape[:-1], table.shape[0])
    return sums.scatter_add(-1, index.expand_as(weights), weights) @ table.to(weights.dtype)
