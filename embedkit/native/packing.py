"""Weights as the kernels read them: packed once into panels, in one piece of memory that the model keeps.

How panels are laid out is the business of the kernels that packed them: the structure names these, and no others read it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from embedkit.model.attention_config import DisentangledConfig
from embedkit.model.config import EncoderConfig
from embedkit.model.shapes import encoder_shapes
from embedkit.native.dispatch import describe_kernels, find_kernels
from embedkit.native.distances import alibi_table, distance_numbers, distance_table
from embedkit.native.library import PANEL, Layer, Linear, Model, NativePrecision, Norm, load_library
from embedkit.native.rotary import rotary_rows

Float32 = NDArray[np.float32]
ACTIVATION_CODES = {"gelu": 0, "gelu_tanh": 1, "relu": 2, "silu": 3}  # enum activation of kernels/native.h
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


def aligned_floats(rows: int, columns: int) -> Float32:
    """Return zeros that vector instructions can read and write: (rows, columns)."""
    return aligned_bytes(4 * rows * columns).view(np.float32).reshape(rows, columns)


def order_of_heads(config: EncoderConfig) -> NDArray[np.int64]:
    """Return the order of the columns of query, key and value that the kernels want; -1 fills up.

    As many heads of keys as fit into a panel, or all where they are normed together, are computed together: the queries that have them,
    the keys, the values, each filled up to whole panels; then those of the next few heads.
    """
    heads, size = config.key_value_heads, config.head_size
    count = heads if config.qk_norm_over_heads else min(heads, max(1, PANEL // size))
    shared = config.num_attention_heads // heads
    keys, values = config.query_size, config.query_size + heads * size  # where they begin
    order = []
    for first in range(0, heads, count):
        there = min(heads - first, count) * size
        for start, width in (
            (first * size * shared, shared),
            (keys + first * size, 1),
            (values + first * size, 1),
        ):
            part = np.full(padded(count * size * width), -1, np.int64)
            part[: there * width] = np.arange(start, start + there * width)
            order.append(part)
    return np.concatenate(order)


def is_shifted(config: EncoderConfig) -> bool:
    """Say whether the input of the down projection is never far below 0, so that int8 needs half as many steps for it."""
    return not config.gated_mlp and config.hidden_act != "silu"


def norms_behind(config: EncoderConfig, layer: int) -> tuple[str, str]:
    """Name the norms that follow attention and feed-forward in a layer: where norms come first, those of what is next."""
    name = "layers.{}.".format
    if not config.norm_first:
        own = name(config.module_of(layer))
        first = "second_attention_norm" if config.second_attention_norm else "attention_norm"
        return own + first, own + "mlp_norm"
    last = layer == config.num_hidden_layers - 1
    return name(layer) + "mlp_norm", "final_norm" if last else name(layer + 1) + "attention_norm"


def reach_of(config: EncoderConfig, layer: int) -> tuple[int, int]:
    """Return how many tokens before its own a token attends to in a layer, and how many behind it."""
    reach = config.local_attention // 2 if config.layer_is_local(layer) else config.max_tokens
    return reach, 0 if config.causal else reach


def added_by_distance(config: EncoderConfig, table: Float32) -> Float32:
    """Return what the kernels add to scores, from the farthest key before a query to the farthest behind it: (H, 2T - 1 + ROOM).

    Scores are scaled afterwards, so `table`, what is added to them then, is divided by the scale.
    """
    return np.pad(table * np.float32(1 / config.attention_scale), ((0, 0), (0, ROOM)))


def distance_heads(
    config: EncoderConfig, distances: Mapping[str, Float32], attention: Mapping[str, Float32]
) -> tuple[Float32, Float32]:
    """Return the queries and keys that a layer makes of the distances' vectors, (H, 2·span, d) each."""
    own = config.disentangled
    assert own is not None
    vectors = distances["vectors.weight"]
    if own.norm_rel_ebd:
        middle = vectors - vectors.mean(axis=1, keepdims=True)
        variance = (middle * middle).mean(axis=1, keepdims=True)
        vectors = middle / np.sqrt(variance + np.float32(config.layer_norm_eps))
        vectors = vectors * distances["norm.weight"] + distances["norm.bias"]
    name = "qkv" if own.share_att_key else "position_qk"
    size = 2 * config.query_size
    both = vectors @ attention[f"{name}.weight"][:size].T
    if f"{name}.bias" in attention:
        both = both + attention[f"{name}.bias"][:size]
    heads = both.reshape(len(both), 2, config.num_attention_heads, config.head_size).transpose(1, 2, 0, 3)
    queries, keys = np.ascontiguousarray(heads)
    return queries, keys


def to_bf16(numbers: Float32) -> NDArray[np.uint16]:
    """Round to the nearest bf16, of two to the even one: its 16 bits."""
    bits = numbers.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


class PackedLinear:
    """A matrix and a bias as the kernels of a precision read them, and the C structure that names them.

    `shift` is what is added to each number of the input beforehand; `panels` is where the weights go, or new memory.

    Shapes:
        weight: (M, K) float32; bias: (M,) float32
    """

    def __init__(
        self,
        weight: Float32,
        bias: Float32,
        *,
        precision: NativePrecision,
        shift: float = 0.0,
        panels: NDArray[np.uint8] | None = None,
    ) -> None:
        kernels = find_kernels(precision)
        columns, rows_in = weight.shape
        self.code_bytes = bytes_per_number(kernels)
        if panels is None:
            panels = aligned_bytes(padded(columns) * padded(rows_in) * self.code_bytes)
        filled = np.zeros(padded(columns), np.float32)
        filled[:columns] = bias
        self.structure = Linear(
            weight=panels.ctypes.data, bias=filled.ctypes.data, rows_in=rows_in, columns=columns
        )
        inverse = start = scale = None
        if precision == "int8":
            inverse, scale = np.zeros((2, padded(columns)), np.float32)
            start = np.zeros(padded(columns), np.int32)
            self.structure.scale, self.structure.start = scale.ctypes.data, start.ctypes.data
        self._kept = panels, filled, scale, start  # what the structure points at must outlive it
        arrays = (np.ascontiguousarray(weight), panels, inverse, scale, start, filled)
        addresses = (None if array is None else array.ctypes.data for array in arrays)
        load_library().embedkit_pack(kernels, ctypes.byref(self.structure), *addresses, shift)


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
        self._packed: list[PackedLinear] = []
        self._shapes = encoder_shapes(config)
        self._layers = self._all_layers()
        distances, stride = self._distances()
        own = config.disentangled
        self.structure = Model(
            kernels=self.kernels,
            projecting=find_kernels("fp32"),
            hidden=config.hidden_size,
            embedding=config.embedding_size or config.hidden_size,
            heads=config.num_attention_heads,
            key_heads=config.key_value_heads,
            head_size=config.head_size,
            norm_together=config.qk_norm_over_heads,
            inner=config.intermediate_size,
            num_layers=config.num_hidden_layers,
            activation=ACTIVATION_CODES[config.hidden_act],
            shifted=is_shifted(config),
            position_offset=config.position_offset,
            eps=config.layer_norm_eps,
            score_scale=config.attention_scale,
            embedding_scale=math.sqrt(config.hidden_size) if config.scale_embeddings else 1.0,
            tokens=self._table("embeddings.tokens.weight"),
            positions=self._table("embeddings.positions.weight"),
            token_types=self._table("embeddings.token_types.weight"),
            embedding_norm=self._norm("embeddings.norm"),
            first_norm=self._norm("layers.0.attention_norm") if config.norm_first else Norm(),
            final_norm=self._norm("final_norm") if config.norm_first else Norm(),
            projection=self._projection(),
            distances=distances,
            distances_stride=stride,
            numbers=None if own is None else self._numbers(own),
            num_distances=0 if own is None else 2 * own.span,
            layers=self._layers,
        )
        del self._weights

    def _size_of_panels(self) -> int:
        config = self.config
        hidden, inner = padded(config.hidden_size), padded(config.intermediate_size)
        numbers = (
            len(order_of_heads(config)) * hidden
            + padded(config.query_size) * hidden
            + (3 if config.gated_mlp else 2) * hidden * inner
        )
        size = config.num_distinct_layers * numbers * bytes_per_number(self.kernels)
        return size + padded(config.embedding_size or 0) * hidden * bytes_per_number(find_kernels("fp32"))

    def _read(self, name: str) -> Float32:
        shape = self._shapes[name]
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

    def _table(self, name: str) -> int | None:
        """Return where a table lies; None where such a model has none."""
        return self._keep(self._read(name)) if name in self._shapes else None

    def _norm(self, name: str) -> Norm:
        """Return a norm; one without weights where the model has none there."""
        if f"{name}.weight" not in self._shapes:
            return Norm()
        if self.config.norm != "layer":
            more = np.float32(self.config.norm == "rms_offset")  # than is stored
            return Norm(self._keep(self._read(f"{name}.weight") + more), None)
        bias, size = self._table(f"{name}.bias"), self._shapes[f"{name}.weight"][0]
        return Norm(self._table(f"{name}.weight"), bias or self._keep(np.zeros(size, np.float32)))

    def _projection(self) -> Linear:
        """Pack what widens narrow embeddings: in fp32, since it takes a thousandth of the time of the layers behind it."""
        config = self.config
        if config.embedding_size is None:
            return Linear()
        return self._linear("embeddings.projection", precision="fp32")

    def _distances(self) -> tuple[int | None, int]:
        """Return where the first head's number for distance 0 lies, and how many numbers there are a head."""
        config = self.config
        if config.position == "alibi":
            by_distance = alibi_table(config.num_attention_heads, config.max_tokens)
        elif config.relative_attention_num_buckets:
            weight, farthest = self._read("relative_bias.weight"), config.relative_attention_max_distance
            by_distance = distance_table(weight, config.max_tokens, farthest)
        else:
            return None, 0
        table = added_by_distance(config, by_distance)
        return self._keep(table) + (self.config.max_tokens - 1) * table.itemsize, table.shape[1]

    def _numbers(self, own: DisentangledConfig) -> int:
        """Return where the number of distance 0 lies."""
        numbers = distance_numbers(self.config.max_tokens, own)
        return self._keep(numbers) + (self.config.max_tokens - 1) * numbers.itemsize

    def _distance_heads(self, module: int) -> dict[str, int]:
        """Return where keys and queries of distances lie, of a layer with disentangled attention."""
        config, own = self.config, self.config.disentangled
        if own is None:
            return {}
        queries, keys = distance_heads(
            config, self._read_all("distances."), self._read_all(f"layers.{module}.attention.")
        )
        there = {
            "distance_keys": (keys, own.content_to_position),
            "distance_queries": (queries, own.position_to_content),
        }
        two_bytes = describe_kernels(self.kernels).number_bytes == 2
        return {
            name: self._keep(to_bf16(heads) if two_bytes else heads)
            for name, (heads, used) in there.items()
            if used
        }

    def _read_all(self, prefix: str) -> dict[str, Float32]:
        """Return the weights whose names begin so, by the rest of their names."""
        names = [name for name in self._shapes if name.startswith(prefix)]
        return {name.removeprefix(prefix): self._read(name) for name in names}

    def _all_layers(self) -> ctypes.Array[Layer]:
        config, numbers = self.config, range(self.config.num_hidden_layers)
        layers = (Layer * config.num_hidden_layers)()
        modules = [self._module(module) for module in range(config.num_distinct_layers)]
        local = [config.layer_is_local(number) for number in numbers]
        rotary: dict[bool, int] = {}
        if config.position == "rope":
            rotary = {kind: self._keep(rotary_rows(config, local=kind)) for kind in set(local)}
        for number in numbers:
            layers[number] = modules[config.module_of(number)]  # which copies it
            layer = layers[number]
            layer.after_attention, layer.after_mlp = map(self._norm, norms_behind(config, number))
            layer.reach, layer.ahead = reach_of(config, number)
            layer.rotary = rotary.get(local[number])
        return layers

    def _module(self, module: int) -> Layer:
        config, prefix = self.config, f"layers.{module}."
        up, gate = np.arange(2 * config.intermediate_size).reshape(2, -1)
        if config.gate_second:
            up, gate = gate, up
        return Layer(
            qkv=self._linear(f"{prefix}attention.qkv", order=order_of_heads(config)),
            out=self._linear(f"{prefix}attention.out"),
            up=self._linear(f"{prefix}mlp.up", order=up if config.gated_mlp else None),
            gate=self._linear(f"{prefix}mlp.up", order=gate) if config.gated_mlp else Linear(),
            down=self._linear(f"{prefix}mlp.down", shift=SHIFT if is_shifted(config) else 0.0),
            of_attention=self._norm(
                f"{prefix}attention_norm" if config.second_attention_norm else f"{prefix}attention_post_norm"
            ),
            twice=config.second_attention_norm,
            of_mlp=self._norm(f"{prefix}mlp_post_norm"),
            query_norm=self._norm(f"{prefix}attention.query_norm"),
            key_norm=self._norm(f"{prefix}attention.key_norm"),
            **self._distance_heads(module),
        )

    def _linear(
        self,
        name: str,
        *,
        order: NDArray[np.int64] | None = None,
        shift: float = 0.0,
        precision: NativePrecision | None = None,
    ) -> Linear:
        precision = precision or self.precision
        kernels = find_kernels(precision)
        weight = self._read(f"{name}.weight")
        biased = f"{name}.bias" in self._shapes
        bias = self._read(f"{name}.bias") if biased else np.zeros(len(weight), np.float32)
        if order is not None:
            weight, bias = weight[order], bias[order]
            weight[order < 0], bias[order < 0] = 0, 0
        columns, rows_in = weight.shape
        size = padded(columns) * padded(rows_in) * bytes_per_number(kernels)
        panels = self._panels[self._used : self._used + size]
        self._used += size
        packed = PackedLinear(weight, bias, precision=precision, shift=shift, panels=panels)
        self._packed.append(packed)
        return packed.structure
