"""A sentence encoder as one ONNX graph: token ids in, sentence vectors out, with pooling, dense layers and normalization.

    input_ids, attention_mask (batch, length) int64, 1 = real token, padding on the right
    -> sentence_embedding (batch, E), token_embeddings (batch, length, D) float32; what stands at padding is meaningless

The twin of `embedkit.model.sentence` for every family, written operator by operator from the same weights: no torch.
Texts are single ones here, so every token is of type 0. Attention knows only how far a key stands from its query: ALBERT to
ModernBERT need no more than a table by distance and rotary tables by position.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedkit.checkpoint.arrays import SentenceWeights, load_sentence_weights
from embedkit.checkpoint.folder import ModelFolder
from embedkit.extras import load_extra
from embedkit.model.config import LayerNormConfig, PoolingMode
from embedkit.native.distances import relative_buckets
from embedkit.native.rotary import rotary_angles
from embedkit.types import Float32

if TYPE_CHECKING:
    from embedkit.extras.onnx import GraphWriter

# Added to the score of a token that may not be attended to: nothing is left of it after the softmax, and it is finite, also in
# fp16, so that a row of padding becomes no NaN.
MASKED = -30_000.0
LOWEST = float(np.finfo(np.float32).min)


def write_graph(folder: ModelFolder, path: Path) -> None:
    """Write a model folder's graph, in fp32.

    Raises:
        MissingExtraError: the package `onnx` is not installed.
        CheckpointError: the weights do not fit the folder's config.
    """
    extra = load_extra("onnx", purpose="writing a graph")
    graph: GraphWriter = extra.GraphWriter()
    _Writer(graph, folder, load_sentence_weights(folder)).write()
    graph.save(
        path,
        inputs={"input_ids": ("batch", "length"), "attention_mask": ("batch", "length")},
        outputs={
            "sentence_embedding": ("batch", folder.embedding_size),
            "token_embeddings": ("batch", "length", folder.config.hidden_size),
        },
        producer="embedkit",
    )


class _Writer:
    """Writes the nodes of one model; values are named by the node that makes them."""

    def __init__(self, graph: GraphWriter, folder: ModelFolder, weights: SentenceWeights) -> None:
        self.graph, self.node, self.constant = graph, graph.node, graph.constant
        self.config, self.sentence = folder.config, folder.modules.sentence
        self.weights, self.dense = weights.encoder, weights.dense

    def write(self) -> None:
        self.length = self.node("Gather", self.node("Shape", "input_ids"), self.constant("one", 1))
        self.ramp = self.node("Range", self.constant("zero", 0), self.length, "one")  # (T,)
        hidden = self.embed()
        biases = {local: self.bias(local) for local in {self.config.layer_is_local(i) for i in self.layers}}
        for number in self.layers:
            hidden = self.layer(number, hidden, biases[self.config.layer_is_local(number)])
        if self.config.norm_first:
            hidden = self.norm("final_norm", hidden)
        self.node("Identity", hidden, name="token_embeddings")
        self.head(hidden)

    @property
    def layers(self) -> range:
        return range(self.config.num_hidden_layers)

    def embed(self) -> str:
        """Sum the rows of each token, (B, T, D); the row of type 0 is added to each position's, or each token's."""
        config = self.config
        tokens = self.weights["embeddings.tokens.weight"]
        first_type = self.weights["embeddings.token_types.weight"][0] if config.type_vocab_size else 0
        if config.position == "rope":
            table = self.constant("embeddings.tokens", tokens + first_type)
            hidden = self.node("Gather", table, "input_ids")
        else:
            rows = self.weights["embeddings.positions.weight"][config.position_offset :] + first_type
            table = self.constant("embeddings.tokens", tokens)
            hidden = self.node(
                "Add", self.node("Gather", table, "input_ids"), self.rows("embeddings.positions", rows)
            )
        hidden = self.norm("embeddings.norm", hidden)
        return hidden if config.embedding_size is None else self.linear("embeddings.projection", hidden)

    def rows(self, name: str, table: Float32) -> str:
        """Return the rows of the positions of a batch: (P, D) -> (T, D)."""
        return self.node("Gather", self.constant(name, table), self.ramp)

    def bias(self, local: bool) -> str:
        """Return what is added to attention's scores, (B, 1 or H, T, T): the mask, and what the distance adds."""
        mask = self.node("Equal", "attention_mask", "zero")
        mask = self.node("Unsqueeze", mask, self.constant("heads_and_queries", [1, 2]))  # (B, 1, 1, T)
        unseen = self.node("Where", mask, self.constant("masked", MASKED), self.constant("seen", 0.0))
        last = self.config.max_tokens - 1
        distance = np.arange(-last, last + 1)  # of a key from its query
        by_distance = np.zeros((1, len(distance)), np.float32)
        if self.config.relative_attention_num_buckets:
            buckets = relative_buckets(distance, self.config.relative_attention_num_buckets)
            by_distance = by_distance + self.weights["relative_bias.weight"][buckets].T  # (H, 2P - 1)
        if local:
            by_distance = by_distance + np.where(
                np.abs(distance) <= self.config.local_attention // 2, 0, MASKED
            )
        if not by_distance.any():
            return unseen
        table = self.constant(f"by_distance.{'local' if local else 'global'}", by_distance.astype(np.float32))
        queries = self.node("Unsqueeze", self.ramp, "one")  # (T, 1)
        place = self.node("Add", self.node("Sub", self.ramp, queries), self.constant("last_position", last))
        return self.node("Add", unseen, self.node("Gather", table, place, axis=1))  # (1 or H, T, T)

    def layer(self, number: int, hidden: str, bias: str) -> str:
        name = f"layers.{self.config.module_of(number)}."
        if self.config.norm_first:
            first = hidden if number == 0 else self.norm(name + "attention_norm", hidden)
            hidden = self.node("Add", hidden, self.attend(name, first, bias, number))
            return self.node("Add", hidden, self.feed_forward(name, self.norm(name + "mlp_norm", hidden)))
        attended = self.node("Add", hidden, self.attend(name, hidden, bias, number))
        hidden = self.norm(name + "attention_norm", attended)
        return self.norm(name + "mlp_norm", self.node("Add", hidden, self.feed_forward(name, hidden)))

    def attend(self, name: str, hidden: str, bias: str, number: int) -> str:
        """Let every token attend within its sequence: (B, T, D) -> (B, T, D)."""
        config = self.config
        split = self.constant("heads", [0, 0, config.num_attention_heads, config.head_size])
        heads = []
        for part in range(3):
            # Three products, as other exporters write them: what fuses attention looks for these.
            projected = self.node("Reshape", self.linear(name + "attention.qkv", hidden, part=part), split)
            heads.append(self.node("Transpose", projected, perm=[0, 2, 1, 3]))  # (B, H, T, d)
        query, key, value = heads
        if config.position == "rope":
            query, key = self.rotate(query, number), self.rotate(key, number)
        scale = self.constant("scale", 1 / math.sqrt(config.head_size))
        scores = self.node("MatMul", query, self.node("Transpose", key, perm=[0, 1, 3, 2]))
        scores = self.node("Add", self.node("Mul", scores, scale), bias)
        context = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        context = self.node("Transpose", context, perm=[0, 2, 1, 3])  # (B, T, H, d)
        merged = self.node("Reshape", context, self.constant("merged_heads", [0, 0, config.hidden_size]))
        return self.linear(name + "attention.out", merged)

    def rotate(self, x: str, number: int) -> str:
        """Rotate queries or keys, (B, H, T, d), by their positions, as `embedkit.model.layers.rotate` does."""
        config = self.config
        local = config.layer_is_local(number)
        kind = "local" if local else "global"
        half = config.head_size // 2
        angle = np.tile(rotary_angles(config, local=local), 2)  # (P, d)
        cos = self.rows(f"rotary.{kind}.cos", np.cos(angle))
        sin = self.rows(f"rotary.{kind}.sin", np.sin(angle))
        first, second = self.graph.nodes("Split", x, self.constant("halves", [half, half]), count=2, axis=-1)
        turned = self.node("Concat", self.node("Neg", second), first, axis=-1)
        return self.node("Add", self.node("Mul", x, cos), self.node("Mul", turned, sin))

    def feed_forward(self, name: str, hidden: str) -> str:
        inner = self.linear(name + "mlp.up", hidden)
        if self.config.gated_mlp:
            width = self.config.intermediate_size
            inner, gate = self.graph.nodes(
                "Split", inner, self.constant("value_and_gate", [width, width]), count=2, axis=-1
            )
            inner = self.node("Mul", self.activate(inner, self.config.hidden_act), gate)
        else:
            inner = self.activate(inner, self.config.hidden_act)
        return self.linear(name + "mlp.down", inner)

    def activate(self, x: str, activation: str) -> str:
        match activation:
            case "identity":
                return x
            case "gelu":
                return self.node("Gelu", x)
            case "gelu_tanh":
                return self.node("Gelu", x, approximate="tanh")
            case "silu":
                return self.node("Mul", x, self.node("Sigmoid", x))
            case _:
                # The slopes below zero of both last ones are ONNX's defaults as they are torch's.
                names = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
                return self.node((names | {"elu": "Elu", "leaky_relu": "LeakyRelu"})[activation], x)

    def linear(self, name: str, x: str, *, part: int | None = None) -> str:
        """Multiply by a weight and add its bias; of stacked queries, keys and values one `part` alone."""
        return self.product(
            name if part is None else f"{name}.{part}",
            x,
            _part(self.weights[name + ".weight"], part),
            _part(self.weights[name + ".bias"], part) if name + ".bias" in self.weights else None,
        )

    def product(self, name: str, x: str, weight: Float32, bias: Float32 | None) -> str:
        out = self.node("MatMul", x, self.constant(name + ".weight", weight.T))
        return out if bias is None else self.node("Add", out, self.constant(name + ".bias", bias))

    def norm(self, name: str, x: str) -> str:
        parameters = [self.constant(name + ".weight", self.weights[name + ".weight"])]
        if name + ".bias" in self.weights:
            parameters.append(self.constant(name + ".bias", self.weights[name + ".bias"]))
        return self.node("LayerNormalization", x, *parameters, axis=-1, epsilon=self.config.layer_norm_eps)

    def head(self, hidden: str) -> None:
        """Pool, go through the dense layers and normalize: (B, T, D) -> (B, E)."""
        real = self.node("Cast", "attention_mask", to=1)  # (B, T) float32
        pooled = [self.pool(hidden, real, mode) for mode in self.sentence.pooling]
        out = pooled[0] if len(pooled) == 1 else self.node("Concat", *pooled, axis=1)
        for number, (weights, layer) in enumerate(zip(self.dense, self.sentence.dense, strict=True)):
            name, weight, bias = f"dense.{number}", weights["0.weight"], weights.get("0.bias")
            if isinstance(layer, LayerNormConfig):
                assert bias is not None
                constants = self.constant(name + ".weight", weight), self.constant(name + ".bias", bias)
                out = self.node("LayerNormalization", out, *constants, axis=-1, epsilon=layer.eps)
            else:
                out = self.activate(self.product(name, out, weight, bias), layer.activation)
        if self.sentence.normalize:
            norm = self.node("ReduceL2", out, self.constant("last_axis", [-1]), keepdims=1)
            out = self.node("Div", out, self.node("Max", norm, self.constant("tiny", 1e-12)))
        self.node("Identity", out, name="sentence_embedding")

    def pool(self, hidden: str, real: str, mode: PoolingMode) -> str:
        """Reduce the token vectors of each text to one, as `embedkit.model.pooling.pool` does: (B, T, D) -> (B, D)."""
        tokens = self.constant("tokens", [1])
        if mode == "cls":
            return self.node("Gather", hidden, "zero", axis=1)
        if mode == "max":
            column = self.node("Unsqueeze", real, self.constant("columns", [2]))  # (B, T, 1)
            kept = self.node(
                "Where", self.node("Cast", column, to=9), hidden, self.constant("lowest", LOWEST)
            )
            return self.node("ReduceMax", kept, tokens, keepdims=0)
        count = self.node("ReduceSum", real, tokens, keepdims=1)  # (B, 1)
        place = self.node("Add", self.node("Cast", self.ramp, to=1), self.constant("one.float", 1.0))  # (T,)
        if mode == "last":
            weights = self.node("Cast", self.node("Equal", place, count), to=1)
        else:
            weights = self.node("Mul", real, place) if mode == "weighted_mean" else real
            total = count if mode != "weighted_mean" else self.node("ReduceSum", weights, tokens, keepdims=1)
            total = self.node("Sqrt", total) if mode == "mean_sqrt_len" else total
            weights = self.node("Div", weights, total)
        # (B, 1, T) @ (B, T, D)
        summed = self.node("MatMul", self.node("Unsqueeze", weights, tokens), hidden)
        return self.node("Squeeze", summed, tokens)


def _part(array: Float32, part: int | None) -> Float32:
    return array if part is None else np.split(array, 3)[part]
