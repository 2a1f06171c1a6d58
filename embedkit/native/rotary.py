"""Rotary positions: the angles by which queries and keys are turned; the kernels and graphs share them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedkit.model.config import EncoderConfig

Float32 = NDArray[np.float32]


def rotary_angles(config: EncoderConfig, *, local: bool) -> Float32:
    """Return the angle of each pair of a head's numbers at each position, as `rotary_table` of the model has it: (T, d/2).

    What is scaled by a text's length is not computed here.
    """
    size = config.head_size
    theta = config.local_rope_theta if local else config.global_rope_theta
    frequency = np.float32(theta) ** (-np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
    if not local:
        frequency = frequency / np.float32(config.rope_factor)
    if not local and config.rope_scaling is not None:
        frequency = config.rope_scaling.scaled(frequency, theta=theta).astype(np.float32)
    angles: Float32 = np.arange(config.max_tokens, dtype=np.float32)[:, None] * frequency
    return angles


def rotary_rows(config: EncoderConfig, *, local: bool) -> Float32:
    """Return what the kernels read for each position: the cosines of its angles, then their sines: (T, d)."""
    angles = rotary_angles(config, local=local)
    rows = np.concatenate((np.cos(angles), np.sin(angles)), axis=1)
    if local or config.rope_scaling is None:
        return rows
    return rows * np.float32(config.rope_scaling.attention_factor)
