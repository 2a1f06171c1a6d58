"""Weights as the kernels read them: packed once into panels, in one piece of memory that the model keeps.

How panels are laid out is the business of the kernels that packed them: the structure names these, and no others read it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from embedkit.model.config import EncoderConfig
from embedkit.native.dispatch import describe_kernels, find_kernels
from embedkit.native.distances import distance_table
from embedkit.native.library import PANEL, Layer, Linear, Model, NativePrecision, load_library

Float32 = NDArray[np.float32]
ACTIVATION_CODES = {"gelu": 0, "gelu_tanh": 1, "relu": 2}
# What is added to the input of the down projection before it is rounded for int8; SHIFT in kernels/common/codes.c.
SHIFT = 0.171
ROOM = 15  # numbers behind the last distance that the kernels may read; LANES - 1 of kernels/native.h


def padded(size: int) -> int:
    return -(-size // PANEL) * PANEL


def bytes_per_number(kernels: int) -> int:
    """Return how large a number of packed weights is."""
    return int(describe_kernels(kernels).code_bytes)


def aligned_bytes(size: int, alignment: int = 64) -> NDArray[np.uint8]:
    """Return `size` zeroed bytes that begin at a multiple of `alignment`; vector loads want 64."""
    memory = np.zeros(size + alignment, np.uint8)
    return memory[-memory.ctypes.data % alignment :][:size]


def order_of_heads(config: EncoderConfig) -> NDArray[np.int64]:
    """Return the order of the columns of query, key and value that the kernels want; -1 fills up.

    As many heads as fit into a panel are computed together: their queries, their keys, their values, each filled
    up to whole panels; then those of the next few heads.
    """
    heads, size = config.num_attention_heads, config.head_size
    count = min(heads, max(1, PANEL // size))
    wide = np.full((-(-heads // count), 3, padded(count * size)), -1, np.int64)
    for group, first in enumerate(range(0, heads, count)):
        columns = np.arange(first, min(heads, first + count))[:, None] * size + np.arange(size)
        for part in range(3):
            wide[group, part, : columns.size] = columns.ravel() + part * config.hidden_size
    return wide.ravel()


def added_by_distance(config: EncoderConfig, weight: Float32) -> Float32:
    """Return what the kernels add to scores, from the farthest key before a query to the farthest behind it: (H, 2T - 1 + ROOM).

    Scores are divided by the root of a head's size afterwards, so it is multiplied by that.
    """
    table = distance_table(weight, config.max_tokens) * np.float32(math.sqrt(config.head_size))
    return np.pad(table, ((0, 0), (0, ROOM)))


class PackedModel:
    """A model's weights in the kernels' layout and the C structure that names them.

    The token table is used where it lies: of a memory-mapped file only the rows of the texts' tokens are read.

    Raises:
        ValueError: a weight is missing, or has another shape than the config says.
    """

    def __init__(
        self, config: EncoderConfig, weights: Mapping[str, Float32], precision: NativePrecision
    ) -> None:
        self.config = config
        self.precision = precision
        self.kernels = find_kernels(precision)
        self._weights = weights
        # One piece from a multiple of 2 MiB on lies in huge pages, where numpy gets them: 1 to 1.5 % faster.
        self._panels = aligned_bytes(self._size_of_panels(), 2**21)
        self._used = 0
        self._kept: list[NDArray[np.generic]] = []  # what the structure points at must outlive it
        modules = [self._layer(number) for number in range(config.num_distinct_layers)]
        layers = (modules[config.module_of(number)] for number in range(config.num_hidden_layers))
        self._layers = (Layer * config.num_hidden_layers)(*layers)
        types, width = config.type_vocab_size, config.embedding_size or config.hidden_size
        distances, stride = self._distances()
        self.structure = Model(
            kernels=self.kernels,
            projecting=find_kernels("fp32"),
            hidden=config.hidden_size,
            embedding=width,
            heads=config.num_attention_heads,
            inner=config.intermediate_size,
            num_layers=config.num_hidden_layers,
            activation=ACTIVATION_CODES[config.hidden_act],
            position_offset=config.position_offset,
            eps=config.layer_norm_eps,
            tokens=self._table("embeddings.tokens.weight", config.vocab_size, width),
            positions=self._table("embeddings.positions.weight", config.max_position_embeddings, width),
            token_types=self._table("embeddings.token_types.weight", types, width) if types else None,
            norm_weight=self._table("embeddings.norm.weight", width),
            norm_bias=self._table("embeddings.norm.bias", width),
            projection=self._projection(),
            distances=distances,
            distances_stride=stride,
            layers=self._layers,
        )
        del self._weights

    def _size_of_panels(self) -> int:
        config = self.config
        hidden, inner = padded(config.hidden_size), padded(config.intermediate_size)
        numbers = len(order_of_heads(config)) * hidden + hidden * hidden + 2 * hidden * inner
        size = config.num_distinct_layers * numbers * bytes_per_number(self.kernels)
        return size + padded(config.embedding_size or 0) * hidden * bytes_per_number(find_kernels("fp32"))

    def _read(self, name: str, *shape: int) -> Float32:
        try:
            weight = self._weights[name]
        except KeyError as exc:
            raise ValueError(
                f"weight {name!r} is missing; a native encoder needs it as {shape} float32"
            ) from exc
        if weight.shape != shape or weight.dtype != np.float32:
            raise ValueError(
                f"weight {name!r} is {weight.shape} {weight.dtype}; the config says {shape} float32"
            )
        return np.ascontiguousarray(weight)  # itself, where it is contiguous: also a memory map

    def _keep(self, array: NDArray[np.generic]) -> int:
        self._kept.append(array)
        return array.ctypes.data

    def _table(self, name: str, *shape: int) -> int:
        return self._keep(self._read(name, *shape))

    def _projection(self) -> Linear:
        """Pack what widens narrow embeddings: in fp32, since it takes a thousandth of the time of the layers behind it."""
        config = self.config
        if config.embedding_size is None:
            return Linear()
        return self._linear(
            "embeddings.projection", config.hidden_size, config.embedding_size, precision="fp32"
        )

    def _distances(self) -> tuple[int | None, int]:
        """Return where the first head's number for distance 0 lies, and how many numbers there are a head."""
        buckets, heads = self.config.relative_attention_num_buckets, self.config.num_attention_heads
        if not buckets:
            return None, 0
        table = added_by_distance(self.config, self._read("relative_bias.weight", buckets, heads))
        return self._keep(table) + (self.config.max_tokens - 1) * table.itemsize, table.shape[1]

    def _layer(self, number: int) -> Layer:
        hidden, inner, prefix = self.config.hidden_size, self.config.intermediate_size, f"layers.{number}."
        return Layer(
            qkv=self._linear(f"{prefix}attention.qkv", 3 * hidden, hidden, order=order_of_heads(self.config)),
            out=self._linear(f"{prefix}attention.out", hidden, hidden),
            up=self._linear(f"{prefix}mlp.up", inner, hidden),
            down=self._linear(f"{prefix}mlp.down", hidden, inner, shift=SHIFT),
            attention_norm_weight=self._table(f"{prefix}attention_norm.weight", hidden),
            attention_norm_bias=self._table(f"{prefix}attention_norm.bias", hidden),
            mlp_norm_weight=self._table(f"{prefix}mlp_norm.weight", hidden),
            mlp_norm_bias=self._table(f"{prefix}mlp_norm.bias", hidden),
        )

    def _linear(
        self,
        name: str,
        columns: int,
        rows_in: int,
        *,
        order: NDArray[np.int64] | None = None,
        shift: float = 0.0,
        precision: NativePrecision | None = None,
    ) -> Linear:
        kernels = self.kernels if precision is None else find_kernels(precision)
        weight = self._read(f"{name}.weight", columns, rows_in)
        plain_bias = self._read(f"{name}.bias", columns)
        if order is not None:
            there = (order >= 0)[:, None]
            weight = np.where(there, weight[order], np.float32(0))
            plain_bias = np.where(there[:, 0], plain_bias[order], np.float32(0))
            columns = len(order)
        bias = np.zeros(padded(columns), np.float32)
        bias[:columns] = plain_bias
        size = padded(columns) * padded(rows_in) * bytes_per_number(kernels)
        packed = self._panels[self._used : self._used + size]
        self._used += size
        linear = Linear(weight=packed.ctypes.data, bias=self._keep(bias), rows_in=rows_in, columns=columns)
        inverse = start = scale = None
        if (precision or self.precision) == "int8":
            inverse, scale = np.zeros((2, padded(columns)), np.float32)
            start = np.zeros(padded(columns), np.int32)
            linear.scale, linear.start = self._keep(scale), self._keep(start)
        arrays = (weight, packed, inverse, scale, start, bias)
        addresses = (None if array is None else array.ctypes.data for array in arrays)
        load_library().embedkit_pack(kernels, ctypes.byref(linear), *addresses, shift)
        return linear
