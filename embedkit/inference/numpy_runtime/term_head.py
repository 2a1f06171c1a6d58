"""From token vectors to the weights of the vocabulary's terms without torch, a stretch of the vocabulary at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.mlm_arrays import MlmWeights
from embedkit.inference.numpy_runtime.activations import ACTIVATIONS
from embedkit.model.config import EncoderConfig
from embedkit.model.sparse_config import TermPooling
from embedkit.native.library import NativePrecision
from embedkit.native.terms import LargestLogits, why_no_terms
from embedkit.types import Float32

BLOCK_LOGITS = 2**21  # at a time, 8 MB: of all tokens, and as many terms as that allows


class TermHead:
    """A masked-language-model head and the pooling of its logits: (N, D) -> (B, V); the logits are never there at once."""

    def __init__(
        self, config: EncoderConfig, weights: MlmWeights, *, precision: NativePrecision | None = None
    ) -> None:
        """`precision` is that of the kernels to use where they can compute this head; without one, numpy does, in fp32."""
        self._weights = weights
        self._activate, self._eps = ACTIVATIONS[config.hidden_act], np.float32(config.layer_norm_eps)
        self._centred = config.norm == "layer"
        self._largest: Callable[[Float32, NDArray[np.int64]], Float32] = self._largest_by_numpy
        if precision is not None and why_no_terms(config) is None:
            self._largest = LargestLogits(config, weights, precision=precision)

    def __call__(self, hidden: Float32, lengths: NDArray[np.int64], pooling: TermPooling) -> Float32:
        """Pool the logits of each sequence.

        Shapes:
            hidden: (N, D), N = sum(lengths); lengths: (B,), none of them 0
            returns: (B, V)
        """
        if pooling.strategy == "max":  # the activation only rises: once a sequence is enough
            return activate(self._largest(hidden, lengths), pooling)
        return self._pooled(hidden, lengths, np.add, lambda logits: activate(logits, pooling))

    def _largest_by_numpy(self, hidden: Float32, lengths: NDArray[np.int64]) -> Float32:
        return self._pooled(hidden, lengths, np.maximum, lambda logits: logits)

    def _pooled(
        self,
        hidden: Float32,
        lengths: NDArray[np.int64],
        pool: np.ufunc,
        of_each: Callable[[Float32], Float32],
    ) -> Float32:
        inner = self._transform(hidden)
        starts = np.cumsum(lengths) - lengths
        decoder, bias = self._weights.decoder, self._weights.bias
        terms = np.empty((len(lengths), len(decoder)), np.float32)
        step = max(64, BLOCK_LOGITS // max(1, len(inner)))
        for first in range(0, len(decoder), step):
            part = slice(first, first + step)
            logits = inner @ decoder[part].T  # (N, step)
            logits += bias[part]
            terms[:, part] = pool.reduceat(of_each(logits), starts, axis=0)
        return terms

    def _transform(self, hidden: Float32) -> Float32:
        weights = self._weights
        inner = hidden @ weights.dense.T
        if weights.dense_bias is not None:
            inner += weights.dense_bias
        inner = self._activate(inner)
        if self._centred:
            inner = inner - inner.mean(axis=-1, keepdims=True)
        inner /= np.sqrt(np.mean(inner * inner, axis=-1, keepdims=True) + self._eps)
        inner *= weights.norm
        if weights.norm_bias is not None:
            inner += weights.norm_bias
        result: Float32 = inner
        return result


def activate(logits: Float32, pooling: TermPooling) -> Float32:
    """Apply log(1 + ReLU(x)), once or twice, in place."""
    np.maximum(logits, 0, out=logits)
    np.log1p(logits, out=logits)
    if pooling.activation == "log1p_relu":
        np.log1p(logits, out=logits)
    return logits
