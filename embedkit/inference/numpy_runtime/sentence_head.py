"""From token vectors to sentence vectors with numpy, in fp32: pooling, dense layers and layer norms, normalization.

The same arithmetic as `embedkit.model.pooling` and `embedkit.model.sentence`, for backends without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from embedkit.inference.numpy_runtime.activations import ACTIVATIONS
from embedkit.model.config import DenseConfig, LayerNormConfig, PoolingMode, SentenceConfig
from embedkit.types import Float32


def _product(weight: Float32) -> Callable[[Float32], Float32]:
    """Return what multiplies rows with a matrix so that a row's bits do not depend on how many there are."""
    from embedkit.native.dispatch import why_not_here

    if why_not_here("fp32") is None:
        from embedkit.native.products import RowProduct

        return RowProduct(weight)
    return partial(sums_of_products, weight)


def sums_of_products(weight: Float32, rows: Float32) -> Float32:
    """Compute x W' without kernels: (M, K), (N, K) -> (N, M)."""
    found: Float32 = np.einsum("ni,oi->no", rows, weight)  # by numpy itself: BLAS rounds a lone row otherwise
    return found


class SentenceHead:
    """Turns the token vectors of packed sequences into sentence vectors: (N, D) -> (B, E)."""

    def __init__(
        self,
        config: SentenceConfig,
        dense: Sequence[Mapping[str, Float32]],
        attention: Mapping[str, Float32] | None = None,
    ) -> None:
        """`dense` holds the weights of each layer after pooling, `0.weight` and perhaps `0.bias`; `attention` those of pooling by it."""
        self.config = config
        self.attention = None if attention is None else dict(attention)
        self.dense = [(layer["0.weight"], layer.get("0.bias")) for layer in dense]
        self._residuals = [
            _product(layer["residual.weight"]) if "residual.weight" in layer else None for layer in dense
        ]
        self._products = [
            None if isinstance(layer, LayerNormConfig) else _product(weight)
            for (weight, _), layer in zip(self.dense, config.dense, strict=True)
        ]

    def __call__(self, hidden: Float32, lengths: NDArray[np.int64], *, skip: int = 0) -> Float32:
        """Pool, without the first `skip` tokens of each sequence, and go through the layers.

        Shapes:
            hidden: (N, D), N = sum(lengths); lengths: (B,)
            returns: (B, E)
        """
        modes = self.config.pooling
        size = hidden.shape[1]
        pooled = np.empty((len(lengths), self.config.pooled_size(size)), np.float32)
        for sequences, tokens in _by_length(hidden, lengths):
            if self.attention is not None:
                pooled[sequences] = self._attend(tokens[:, skip:])
            for number, mode in enumerate(modes):
                pooled[sequences, number * size : (number + 1) * size] = pool(tokens, mode, skip=skip)
        return self.project(pooled)

    def project(self, pooled: Float32) -> Float32:
        """Go through the layers and the normalization, row by row: (B, P) -> (B, E)."""
        layers = zip(self.dense, self._products, self._residuals, self.config.dense, strict=True)
        for (weight, bias), product, residual, layer in layers:
            before = pooled
            if isinstance(layer, LayerNormConfig):
                pooled = _layer_norm(pooled, layer.eps) * weight
            else:
                assert product is not None
                pooled = product(pooled)
            if bias is not None:
                pooled += bias
            if not isinstance(layer, LayerNormConfig):
                pooled = ACTIVATIONS[layer.activation](pooled)
            if isinstance(layer, DenseConfig) and layer.residual:
                pooled = pooled + (before if residual is None else residual(before))
        return normalize(pooled) if self.config.normalize else pooled

    def _attend(self, tokens: Float32) -> Float32:
        """Pool by attention, as `embedkit.model.attention_pooling` does: (count, T, D) -> (count, P)."""
        assert self.attention is not None
        assert self.config.attention is not None
        weights = self.attention
        inner = np.tanh(tokens @ weights["inner.weight"].T + weights["inner.bias"])
        scores = (inner @ weights["aspects.weight"].T).swapaxes(1, 2)  # (count, J, T)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
        scores /= np.maximum(scores.sum(axis=-1, keepdims=True), np.finfo(np.float32).tiny)
        pooled: Float32 = scores @ tokens  # (count, J, D)
        return (
            pooled.mean(axis=1)
            if self.config.attention.combine == "mean"
            else pooled.reshape(len(tokens), -1)
        )


def runs(lengths: NDArray[np.int64]) -> Iterator[tuple[int, int, int, int]]:
    """Group neighbouring sequences of equal length: yields first sequence, how many, first token, length."""
    starts = np.flatnonzero(np.diff(lengths, prepend=-1))
    counts = np.diff(starts, append=len(lengths))
    token = 0
    for first, count in zip(starts.tolist(), counts.tolist(), strict=True):
        length = int(lengths[first])
        yield first, count, token, length
        token += count * length


def mean_of(hidden: Float32, lengths: NDArray[np.int64], *, skip: int = 0) -> Float32:
    """Return the mean of the tokens of each sequence behind the first `skip`; of none it is 0: (N, D) -> (B, D)."""
    means = np.empty((len(lengths), hidden.shape[1]), np.float32)
    for sequences, tokens in _by_length(hidden, lengths):
        means[sequences] = pool(tokens, "mean", skip=skip)
    return means


def _by_length(hidden: Float32, lengths: NDArray[np.int64]) -> Iterator[tuple[slice, Float32]]:
    """Yield neighbouring sequences of equal length, and their tokens: (N, D) -> (count, T, D) each."""
    for first, count, start, length in runs(lengths):
        tokens = hidden[start : start + count * length].reshape(count, length, hidden.shape[1])
        yield slice(first, first + count), tokens


def pool(tokens: Float32, mode: PoolingMode, *, skip: int = 0) -> Float32:
    """Reduce the token vectors of sequences of one length to one each: (count, T, D) -> (count, D).

    What the modes do, `embedkit.model.pooling.pool` says. A sequence of which nothing is left counts as it does there.
    """
    length = tokens.shape[1]
    own = tokens[:, skip:]
    if mode == "cls":
        return tokens[:, skip if skip < length else 0]
    if mode == "last":
        return tokens[:, -1]
    if mode == "max":
        largest: Float32 = own.max(axis=1, initial=-np.inf)
        return largest
    weights = np.ones(own.shape[1], np.float32)
    if mode == "weighted_mean":
        weights = np.arange(1 + skip, 1 + length, dtype=np.float32)
    total = max(float(weights.sum()), 1.0)
    weights /= np.float32(total**0.5 if mode == "mean_sqrt_len" else total)
    result: Float32 = np.matmul(weights, own)  # (T) @ (count, T, D)
    return result


def _layer_norm(vectors: Float32, eps: float) -> Float32:
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    result: Float32 = centred / np.sqrt(np.mean(centred * centred, axis=1, keepdims=True) + np.float32(eps))
    return result


def normalize(embeddings: Float32) -> Float32:
    """Scale each row to unit length; a zero row stays zero, and one that is not finite becomes NaN."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        result: Float32 = embeddings / np.maximum(norms, 1e-12)
    return result
