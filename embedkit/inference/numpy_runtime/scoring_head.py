"""From a cross-encoder's pooled vectors to class logits with numpy, in fp64, whatever runs the transformer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embedkit.inference.numpy_runtime.activations import ACTIVATIONS
from embedkit.model.config import EncoderConfig, HeadConfig
from embedkit.types import Float32


class ScoringHead:
    """The twin of `embedkit.model.classification.ClassificationHead` in numpy: (B, D) -> (B, C).

    It computes in fp64 whatever the transformer does: half precision would round scores to two digits and make ties, and products in fp32
    add up otherwise where more texts are scored together.
    """

    def __init__(self, encoder: EncoderConfig, config: HeadConfig, weights: Mapping[str, Float32]) -> None:
        self.config = config
        self.eps = encoder.layer_norm_eps if config.norm_eps is None else config.norm_eps
        self.weights = {name: weight.astype(np.float64) for name, weight in weights.items()}

    def __call__(self, pooled: Float32) -> Float32:
        weights = self.weights
        inner = pooled.astype(np.float64)
        if self.config.dense:
            inner = pooled @ weights["dense.weight"].T
            if self.config.bias:
                inner += weights["dense.bias"]
            inner = ACTIVATIONS[self.config.activation](inner.astype(np.float32)).astype(np.float64)
        if self.config.norm:
            inner = inner - inner.mean(axis=-1, keepdims=True)
            inner /= np.sqrt(np.mean(inner * inner, axis=-1, keepdims=True) + self.eps)
            inner = inner * weights["norm.weight"] + weights.get("norm.bias", 0.0)
        logits: Float32 = (inner @ weights["out.weight"].T + weights.get("out.bias", 0.0)).astype(np.float32)
        return logits
