"""The largest logit of each term of a vocabulary in each sequence, with the kernels of kernels/terms.c."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedkit.machine import num_cores
from embedkit.model.config import EncoderConfig
from embedkit.native.dispatch import find_kernels
from embedkit.native.library import NativePrecision, Norm, load_library
from embedkit.native.packing import ACTIVATION_CODES, PackedLinear, aligned_bytes, aligned_floats, padded
from embedkit.native.threads import on_threads

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
UNIT_BYTES = 16  # of `struct unit` in kernels/native.h
# Each thread takes its share of rows or columns in so many parts, or one that is late would keep the others waiting.
PARTS = 4


class HeadWeights(Protocol):
    """What stands on an encoder; see `embedkit.checkpoint.mlm_arrays.MlmWeights`.

    Shapes:
        dense: (D', D) with a bias (D',) or None; norm: (D',) with a bias or None; decoder: (V, D'); bias: (V,)
    """

    @property
    def dense(self) -> Float32: ...

    @property
    def dense_bias(self) -> Float32 | None: ...

    @property
    def norm(self) -> Float32: ...

    @property
    def norm_bias(self) -> Float32 | None: ...

    @property
    def decoder(self) -> Float32: ...

    @property
    def bias(self) -> Float32: ...


def why_no_terms(config: EncoderConfig) -> str | None:
    """Say why the kernels cannot compute the head of such a model; None where they can."""
    width = config.embedding_size or config.hidden_size
    if config.norm != "layer":
        return f"its norm is {config.norm}"
    return f"it has {width} dimensions, no multiple of 16" if width % 16 else None


class LargestLogits:
    """A masked-language-model head whose logits are pooled by their maximum; a sequence's bits do not depend on its company."""

    def __init__(
        self,
        config: EncoderConfig,
        weights: HeadWeights,
        *,
        precision: NativePrecision,
        threads: int | None = None,
    ) -> None:
        """`precision` is that of the product with the vocabulary; the rest is computed in fp32."""
        (self._terms, self._width), self._hidden = weights.decoder.shape, weights.dense.shape[1]
        zeros = np.zeros(self._width, np.float32)
        dense_bias = zeros if weights.dense_bias is None else weights.dense_bias
        self._dense = PackedLinear(weights.dense, dense_bias, precision="fp32")
        self._activation, self._eps = ACTIVATION_CODES[config.hidden_act], config.layer_norm_eps
        self._norms = [
            np.array(each)
            for each in (weights.norm, weights.norm_bias if weights.norm_bias is not None else zeros)
        ]
        self._norm = Norm(*(each.ctypes.data for each in self._norms))
        self._decoder = PackedLinear(weights.decoder, weights.bias, precision=precision)
        self._precise, self._kernels = find_kernels("fp32"), find_kernels(precision)
        self._threads = threads or num_cores()
        self._pool = ThreadPoolExecutor(self._threads, "embedkit-terms")

    def __call__(self, hidden: Float32, lengths: Int64) -> Float32:
        """Return the largest logit of each term, NaN for a sequence with a vector that is not finite: (N, D), (B,) -> (B, V).

        Raises:
            ValueError: a sequence has no tokens, or the lengths do not add up to N.
        """
        lengths = np.ascontiguousarray(lengths, np.int64)
        if lengths.sum() != len(hidden) or (len(lengths) and lengths.min() < 1):
            raise ValueError(
                f"lengths {lengths.tolist()[:4]}… for {len(hidden)} rows; each must be at least 1"
            )
        largest = aligned_floats(len(lengths), padded(self._terms))
        if len(hidden):
            inner = self._transform(hidden)
            self._pool_products(inner, lengths, largest)
            owners = np.repeat(np.arange(len(lengths)), lengths)
            largest[owners[~np.isfinite(inner).all(axis=1)]] = np.nan
        return largest[:, : self._terms]

    def _transform(self, hidden: Float32) -> Float32:
        rows = aligned_floats(len(hidden), padded(self._hidden))
        rows[:, : self._hidden] = hidden
        inner = aligned_floats(len(hidden), padded(self._width))

        def work(part: tuple[int, int]) -> None:
            first, last = part
            load_library().embedkit_transform(
                self._precise,
                ctypes.byref(self._dense.structure),
                self._activation,
                ctypes.byref(self._norm),
                self._eps,
                rows[first:last].ctypes.data,
                last - first,
                inner[first:last].ctypes.data,
            )

        list(on_threads(self._pool, work, self._cut(len(hidden), 1), keep=(rows, inner)))
        return inner

    def _pool_products(self, inner: Float32, lengths: Int64, largest: Float32) -> None:
        library = load_library()
        read: NDArray[np.generic] = inner
        units = None
        if library.embedkit_reads_codes(self._kernels):
            rows = len(inner) + library.embedkit_rows_behind(self._kernels)
            read = aligned_bytes(rows * padded(self._width) * self._decoder.code_bytes)
            units = aligned_bytes(len(inner) * UNIT_BYTES)
            library.embedkit_fill_input(
                self._kernels,
                inner.ctypes.data,
                len(inner),
                self._width,
                read.ctypes.data,
                units.ctypes.data,
            )

        def work(part: tuple[int, int]) -> None:
            memory = aligned_bytes(library.embedkit_largest_bytes())
            library.embedkit_largest(
                self._kernels,
                ctypes.byref(self._decoder.structure),
                read.ctypes.data,
                None if units is None else units.ctypes.data,
                lengths.ctypes.data,
                len(inner),
                *part,
                largest.ctypes.data,
                largest.shape[1],
                memory.ctypes.data,
            )

        parts = self._cut(largest.shape[1], padded(1))
        list(on_threads(self._pool, work, parts, keep=(read, units, lengths, largest)))

    def _cut(self, size: int, multiple: int) -> Iterable[tuple[int, int]]:
        """Cut into parts for threads: multiples of a number, but for the last."""
        step = -(-size // (self._threads * PARTS * multiple)) * multiple
        return ((first, min(size, first + step)) for first in range(0, size, step))
