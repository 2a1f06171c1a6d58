"""Distances between tokens, and what they add to scores; the kernels, numpy and graphs share them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from embedkit.model.attention_config import DisentangledConfig, alibi_slopes

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


def relative_buckets(distance: Int64, num_buckets: int, max_distance: int = 128) -> Int64:
    """Number distances of a key from its query, as `relative_position_buckets` of the model does."""
    half = num_buckets // 2
    exact = half // 2
    share = np.log(np.maximum(np.abs(distance), 1).astype(np.float32) / np.float32(exact))
    far = exact + (share / np.float32(math.log(max_distance / exact)) * (half - exact)).astype(np.int64)
    near = np.where(np.abs(distance) < exact, np.abs(distance), np.minimum(far, half - 1))
    buckets: Int64 = near + half * (distance > 0)
    return buckets


def distance_numbers(longest: int, config: DisentangledConfig) -> Int64:
    """Number the distances from key to query, as `distance_index` of the model does.

    Shapes:
        returns: (2 * longest - 1,), of the distances 1 - longest to longest - 1
    """
    distance = np.arange(1 - longest, longest)
    if config.position_buckets:
        middle = config.position_buckets // 2
        size = np.abs(distance)
        beyond = np.maximum(np.maximum(size, middle - 1), 1).astype(np.float32) / np.float32(middle)
        share = np.log(beyond) / np.log(np.float32((config.max_relative_positions - 1) / middle))
        far = np.ceil(share * np.float32(middle - 1)) + middle
        distance = np.where(size <= middle, distance, far * np.sign(distance)).astype(np.int64)
    numbers: Int64 = np.clip(distance + config.span, 0, 2 * config.span - 1)
    return numbers


def alibi_table(num_heads: int, longest: int) -> Float32:
    """Return what is added to the scores of sequences of up to `longest` tokens where they fall with the distance.

    Shapes:
        returns: (H, 2 * longest - 1), of the distances 1 - longest to longest - 1
    """
    distance = np.abs(np.arange(1 - longest, longest, dtype=np.float32))
    return -np.array(alibi_slopes(num_heads), np.float32)[:, None] * distance


def distance_table(weight: Float32, longest: int, max_distance: int = 128) -> Float32:
    """Return what is added to the scores of sequences of up to `longest` tokens, for each distance from query to key.

    Shapes:
        weight: (buckets, H)
        returns: (H, 2 * longest - 1), of the distances 1 - longest to longest - 1
    """
    buckets = relative_buckets(np.arange(1 - longest, longest), len(weight), max_distance)
    return np.ascontiguousarray(weight[buckets].T)
