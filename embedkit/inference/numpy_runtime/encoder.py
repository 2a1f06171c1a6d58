"""BERT's forward pass with numpy, in fp32: for a handful of short texts, where starting torch would take longer.

The twin of `embedkit.model.encoder` for encoders with a norm after each sublayer and learned positions: BERT, RoBERTa,
XLM-R, DistilBERT, MPNet, ALBERT.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.arrays import Weights
from embedkit.inference.numpy_runtime.activations import ACTIVATIONS
from embedkit.inference.numpy_runtime.sentence_head import mean_of, runs
from embedkit.inference.token_merging import merge_packed
from embedkit.model.config import EncoderConfig
from embedkit.native.distances import relative_buckets
from embedkit.native.merging import check_merging
from embedkit.types import Float32

Ids = NDArray[np.int64]


def why_not(config: EncoderConfig) -> str | None:
    """Say what the model has that this forward pass has not; None where it computes the model."""
    if config.routed is not None:
        return f"it has {config.routed}"
    if config.position == "rope":
        return "it has rotary positions"
    if config.attention_variant:
        return f"it has {config.attention_variant}"
    if config.norm_first or config.gated_mlp or config.local_attention:
        return "its layers are not those of BERT"
    return None


class NumpyEncoder:
    """Token ids in, token vectors out: packed (N,) -> (N, D)."""

    def __init__(self, config: EncoderConfig, weights: Weights, *, merge_tokens: float = 0.0) -> None:
        """`weights` are those of a `TransformerEncoder`, under its names; for `merge_tokens` see `embedkit.inference.token_merging`.

        Raises:
            ValueError: the model has what is not computed here, or `merge_tokens` is out of range, or above 0 with
                bucketed distances.
        """
        reason = why_not(config)
        if reason is not None:
            raise ValueError(f"the model is not computed with numpy: {reason}")
        check_merging(merge_tokens, config)
        self.config = config
        self.merge_tokens = merge_tokens
        self.weights = weights
        # Everything but the table of tokens, of which only some rows are read.
        self._parameters = {name: weights[name] for name in weights if name != "embeddings.tokens.weight"}

    def hidden_states(
        self,
        input_ids: Ids,
        lengths: Ids,
        token_type_ids: Ids | None = None,
        *,
        layers: int | None = None,
        num_keys: Ids | None = None,
    ) -> Float32:
        """Encode packed sequences, through the first `layers` where it is given; merged tokens have the same vector.

        Of each sequence the first `num_keys` tokens are attended to; None: all.

        Shapes:
            input_ids, token_type_ids: (N,), N = sum(lengths); lengths, num_keys: (B,)
            returns: (N, D)
        Raises:
            ValueError: `num_keys` beside merging.
        """
        if num_keys is not None and self.merge_tokens:
            raise ValueError("num_keys goes without merge_tokens: merged tokens have no place of their own")
        unseen = None if num_keys is None else _beyond(lengths, num_keys)
        hidden = self._embed(input_ids, lengths, token_type_ids)
        sizes = np.ones(len(hidden), np.float32)  # tokens that each row stands for
        owners = np.arange(len(hidden))  # the row of each token
        for number in range(self.config.num_hidden_layers if layers is None else layers):
            name = f"layers.{self.config.module_of(number)}."
            attended = self._linear(
                name + "attention.out", self._attend(name, hidden, lengths, sizes, unseen)
            )
            hidden = self._norm(name + "attention_norm", hidden + attended)
            if self.merge_tokens:
                hidden, sizes, lengths, places = merge_packed(hidden, sizes, lengths, share=self.merge_tokens)
                owners = places[owners]
            inner = ACTIVATIONS[self.config.hidden_act](self._linear(name + "mlp.up", hidden))
            hidden = self._norm(name + "mlp_norm", hidden + self._linear(name + "mlp.down", inner))
        return hidden[owners] if self.merge_tokens else hidden

    def first_states(
        self, input_ids: Ids, lengths: Ids, token_type_ids: Ids | None = None, *, layers: int | None = None
    ) -> Float32:
        """Return what `hidden_states` does of the first tokens: -> (B, D). All are computed: here texts are few."""
        hidden = self.hidden_states(input_ids, lengths, token_type_ids, layers=layers)
        first: Float32 = hidden[np.cumsum(lengths) - lengths]
        return first

    def mean_states(
        self,
        input_ids: Ids,
        lengths: Ids,
        token_type_ids: Ids | None = None,
        *,
        layers: int | None = None,
        skip: int = 0,
    ) -> Float32:
        """Return the mean of each sequence's tokens behind the first `skip`: -> (B, D)."""
        hidden = self.hidden_states(input_ids, lengths, token_type_ids, layers=layers)
        return mean_of(hidden, lengths, skip=skip)

    def _embed(self, input_ids: Ids, lengths: Ids, token_type_ids: Ids | None) -> Float32:
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(len(input_ids)) - np.repeat(starts, lengths) + self.config.position_offset
        hidden = self.weights.rows("embeddings.tokens.weight", input_ids)
        hidden = hidden + self._parameters["embeddings.positions.weight"][positions]
        if self.config.type_vocab_size:
            types = self._parameters["embeddings.token_types.weight"]
            hidden += types[0] if token_type_ids is None else types[token_type_ids]
        hidden = self._norm("embeddings.norm", hidden)
        return hidden if self.config.embedding_size is None else self._linear("embeddings.projection", hidden)

    def _attend(
        self,
        name: str,
        hidden: Float32,
        lengths: Ids,
        sizes: Float32,
        unseen: NDArray[np.bool_] | None = None,
    ) -> Float32:
        """Let every token attend within its sequence, as often to each other as its size says: (N, D) -> (N, D).

        Tokens that are `unseen`, (N,) bool, are attended to by none.
        """
        heads, width = self.config.num_attention_heads, self.config.head_size
        projected = self._linear(name + "attention.qkv", hidden)  # (N, 3D)
        out = np.empty_like(hidden)
        for _, count, start, length in runs(lengths):
            stop = start + count * length
            split = projected[start:stop].reshape(count, length, 3, heads, width)
            query, key, value = split.transpose(2, 0, 3, 1, 4)  # (count, H, T, d) each
            scores = query @ key.swapaxes(-1, -2) * np.float32(1 / math.sqrt(width))  # (count, H, T, T)
            if self.config.relative_attention_num_buckets:
                scores += self._parameters["relative_bias.weight"][self._buckets(length)].transpose(2, 0, 1)
            if self.merge_tokens:
                scores += np.log(sizes[start:stop]).reshape(count, 1, 1, length)
            if unseen is not None:
                scores[
                    np.broadcast_to(unseen[start:stop].reshape(count, 1, 1, length), scores.shape)
                ] = -np.inf
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            # (count, H, T, d) -> (count·T, D)
            out[start:stop] = (scores @ value).swapaxes(1, 2).reshape(count * length, -1)
        return out

    def _buckets(self, length: int) -> Ids:
        """Number the distances between two positions: (T, T)."""
        position = np.arange(length)
        return relative_buckets(
            position[None, :] - position[:, None], self.config.relative_attention_num_buckets
        )

    def _linear(self, name: str, x: Float32) -> Float32:
        out: Float32 = x @ self._parameters[name + ".weight"].T
        bias = self._parameters.get(name + ".bias")
        if bias is not None:
            out += bias
        return out

    def _norm(self, name: str, x: Float32) -> Float32:
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(self.config.layer_norm_eps))
        x *= self._parameters[name + ".weight"]
        bias = self._parameters.get(name + ".bias")
        if bias is not None:
            x += bias
        return x


def _beyond(lengths: Ids, num_keys: Ids) -> NDArray[np.bool_]:
    """Say of each token whether it stands beyond the first `num_keys` of its sequence: (N,)."""
    position = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    found: NDArray[np.bool_] = position >= np.repeat(num_keys, lengths)
    return found
