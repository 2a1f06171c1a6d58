"""How much work a forward pass is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedkit.model.encoder import TransformerEncoder


def encoder_flops(encoder: TransformerEncoder, lengths: NDArray[np.int64]) -> float:
    """Count the multiplications and additions of a forward pass: products of weights and of attention.

    Layers that share their weights count as often as they are run through.

    Shapes:
        lengths: (B,) tokens of each sequence
    """
    config, layers = encoder.config, encoder.layers
    weights = sum(p.numel() for layer in layers for p in layer.parameters() if p.ndim > 1) / len(layers)
    attention = 4 * config.hidden_size * float((lengths**2).sum())
    return config.num_hidden_layers * (2 * weights * float(lengths.sum()) + attention)
