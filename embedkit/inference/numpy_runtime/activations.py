"""The activations of all layers and heads as functions of numpy arrays, in fp32."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from embedkit.types import Float32

# Abramowitz and Stegun 1964, formula 7.1.26: the error is at most 1.5e-7, which is that of float32 itself.
_P = 0.3275911
_A = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def erf(x: Float32) -> Float32:
    """Return the error function of each value."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(_P) * size)
    series = np.zeros_like(t)
    for factor in reversed(_A):
        series = (series + np.float32(factor)) * t
    result: Float32 = np.copysign(1 - series * np.exp(-size * size), x)
    return result


def sigmoid(x: Float32) -> Float32:
    result: Float32 = 0.5 + 0.5 * np.tanh(0.5 * x)  # no overflow, whatever x is
    return result.astype(np.float32)


def gelu(x: Float32) -> Float32:
    """Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415, section 2."""
    result: Float32 = x * (np.float32(0.5) + np.float32(0.5) * erf(x * np.float32(math.sqrt(0.5))))
    return result


def gelu_tanh(x: Float32) -> Float32:
    """The approximation by tanh of the same section."""
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    result: Float32 = np.float32(0.5) * x * (1 + np.tanh(inner))
    return result


def silu(x: Float32) -> Float32:
    return x * sigmoid(x)


def relu(x: Float32) -> Float32:
    result: Float32 = np.maximum(x, np.float32(0))
    return result


def elu(x: Float32) -> Float32:
    """Clevert et al. 2016, https://arxiv.org/abs/1511.07289, eq. 15, with alpha = 1."""
    result: Float32 = np.where(x > 0, x, np.expm1(np.minimum(x, np.float32(0))))
    return result


def leaky_relu(x: Float32) -> Float32:
    """With the slope of 0.01 below zero that torch has as its default."""
    result: Float32 = np.where(x > 0, x, np.float32(0.01) * x)
    return result


def softplus(x: Float32) -> Float32:
    result: Float32 = np.logaddexp(np.float32(0), x)
    return result


def selu(x: Float32) -> Float32:
    """Klambauer et al. 2017, https://arxiv.org/abs/1706.02515, eq. 2."""
    scale, alpha = np.float32(1.0507009873554805), np.float32(1.6732632423543772)
    result: Float32 = scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, np.float32(0))))
    return result


def hardsigmoid(x: Float32) -> Float32:
    """A line from 0 at -3 to 1 at 3, as torch has it."""
    result: Float32 = np.clip(x / np.float32(6) + np.float32(0.5), np.float32(0), np.float32(1))
    return result


ACTIVATIONS: dict[str, Callable[[Float32], Float32]] = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "sigmoid": sigmoid,
    "elu": elu,
    "leaky_relu": leaky_relu,
    "mish": lambda x: x * np.tanh(softplus(x)),
    "softplus": softplus,
    "selu": selu,
    "relu6": lambda x: np.clip(x, np.float32(0), np.float32(6)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "log_sigmoid": lambda x: -softplus(-x),
    "hardtanh": lambda x: np.clip(x, np.float32(-1), np.float32(1)),
    "hardsigmoid": hardsigmoid,
    "hardswish": lambda x: x * hardsigmoid(x),
}
