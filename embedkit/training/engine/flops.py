"""How much work a forward pass is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from embedkit.model.attention_costs import attention_flops
from embedkit.model.encoder import TransformerEncoder


def encoder_flops(encoder: TransformerEncoder, lengths: NDArray[np.int64]) -> float:
    """Count the multiplications and additions of a forward pass: products of weights and of attention.

    Layers that share their weights count as often as they are run through.

    Shapes:
        lengths: (B,) tokens of each sequence
    """
    config, layers = encoder.config, encoder.layers
    linear = (part.weight for layer in layers for part in layer.modules() if isinstance(part, nn.Linear))
    weights = sum(weight.numel() for weight in linear) / len(layers)
    tokens, pairs = float(lengths.sum()), float((lengths**2).sum())
    return config.num_hidden_layers * (2 * weights * tokens + attention_flops(config, tokens, pairs))
