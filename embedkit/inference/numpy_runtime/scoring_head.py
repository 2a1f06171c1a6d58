"""From a cross-encoder's pooled vectors to class logits with numpy, in fp32, whatever runs the transformer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embedkit.inference.numpy_runtime.activations import ACTIVATIONS
from embedkit.model.config import EncoderConfig, HeadConfig
from embedkit.types import Float32


class ScoringHead:
    """The twin of `embedkit.model.classification.ClassificationHead` in numpy: (B, D) -> (B, C).

    It computes in fp32 whatever the transformer does: half precision would round scores to two digits and make ties.
    """

    def __init__(self, encoder: EncoderConfig, config: HeadConfig, weights: Mapping[str, Float32]) -> None:
        self.config, self.eps = config, encoder.layer_norm_eps
        self.weights = dict(weights)

    def __call__(self, pooled: Float32) -> Float32:
        weights = self.weights
        inner = pooled
        if self.config.dense:
            inner = pooled @ weights["dense.weight"].T
            if self.config.bias:
                inner += weights["dense.bias"]
            inner = ACTIVATIONS[self.config.activation](inner)
        if self.config.norm:
            inner = inner - inner.mean(axis=-1, keepdims=True)
            inner /= np.sqrt(np.mean(inner * inner, axis=-1, keepdims=True) + np.float32(self.eps))
            inner = inner * weights["norm.weight"] + weights.get("norm.bias", np.float32(0))
        logits: Float32 = inner @ weights["out.weight"].T + weights.get("out.bias", np.float32(0))
        return logits
