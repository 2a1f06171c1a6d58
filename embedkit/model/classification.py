"""The cross-encoder's network: an encoder over both texts at once and a small head that turns it into scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.config import EncoderConfig, HeadConfig
from embedkit.model.encoder import TransformerEncoder, init_weights
from embedkit.model.feed_forward import activate
from embedkit.model.layers import AttentionBias, EncoderLayer, Run, runs_of, split_runs
from embedkit.model.lora import whole_weight
from embedkit.model.norms import layer_norm
from embedkit.model.positions import rotate


class ClassificationHead(nn.Module):
    """Pooled vectors in, one number a label out: (B, D) -> (B, C), in the precision of the head's own weights.

    Source: Devlin et al. 2019, section 4.1 over the pooler of their code; Warner et al. 2024 for the norm.
    """

    def __init__(self, encoder: EncoderConfig, config: HeadConfig) -> None:
        super().__init__()
        self.activation = config.activation
        size = encoder.hidden_size
        self.dense = nn.Linear(size, size, bias=config.bias) if config.dense else None
        self.norm = _norm(encoder, config) if config.norm else None
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(size, config.num_labels, bias=config.out_bias)
        self.apply(lambda module: init_weights(module, encoder.initializer_range))

    def forward(self, pooled: Tensor) -> Tensor:
        inner = pooled.to(self.out.weight.dtype)
        if self.dense is not None:
            inner = self.dense(inner)
            inner = torch.tanh(inner) if self.activation == "tanh" else activate(inner, self.activation)
        if self.norm is not None:
            inner = self.norm(inner)
        logits: Tensor = self.out(self.dropout(inner))
        return logits


def _norm(encoder: EncoderConfig, config: HeadConfig) -> nn.Module:
    """Return the head's norm: the encoder's kind, or a layer norm of its own."""
    if config.norm_eps is None:
        return layer_norm(encoder, encoder.hidden_size)
    return nn.LayerNorm(encoder.hidden_size, eps=config.norm_eps, bias=bool(config.norm_bias))


class SequenceClassifier(nn.Module):
    """Encoder and head over packed sequences: N tokens of B sequences -> (B, C) logits.

    Source: Nogueira and Cho 2019, https://arxiv.org/abs/1901.04085, section 3, where C = 1.
    """

    def __init__(self, encoder: TransformerEncoder, config: HeadConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        self.head = ClassificationHead(encoder.config, config)

    def forward(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        token_type_ids: Tensor | None = None,
        *,
        exits: Sequence[int] = (),
    ) -> Tensor:
        """Score B sequences after each of X numbers of layers, with every layer computed whole, as training needs it.

        Shapes:
            input_ids, token_type_ids: (N,) long, N = sum(lengths)
            exits: X numbers of layers, ascending; none means after the last alone
            returns: (X, B, C) logits
        """
        config = self.encoder.config
        exits = exits or (config.num_hidden_layers,)
        runs = runs_of(lengths)
        hidden, biases = self.encoder.embed(input_ids, runs, token_type_ids)
        states = islice(self.encoder.walk(hidden, runs, biases), exits[-1])
        found = [
            self.head(self._pool(self.encoder.finish(hidden), lengths))
            for number, hidden in enumerate(states, 1)
            if number in exits
        ]
        return torch.stack(found)

    @torch.inference_mode()
    def pooled(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        token_type_ids: Tensor | None = None,
        *,
        layers: int | None = None,
    ) -> Tensor:
        """Return what the head reads of B sequences in evaluation mode, without computing what no score depends on.

        Where the head reads the first token alone, the last layer is computed for that token alone: its keys and values
        need all tokens, its queries, projection and feed-forward do not. `layers` stops after so many layers.

        Shapes:
            input_ids, token_type_ids: (N,) long, N = sum(lengths)
            returns: (B, D)
        """
        config = self.encoder.config
        last = (config.num_hidden_layers if layers is None else layers) - 1
        runs = runs_of(lengths)
        hidden, biases = self.encoder.embed(input_ids, runs, token_type_ids)
        walk = self.encoder.walk(hidden, runs, biases)
        # A recursion by a router computes its layers itself, whole.
        recursion = config.recursion
        whole = recursion is not None and recursion.routed and recursion.step_of(last) is not None
        first = self.config.pooling == "cls" and not whole and not config.attention_variant
        for states in islice(walk, last if first else last + 1):
            hidden = states
        if first:
            layer, bias = self.encoder.layer(last), biases[config.layer_is_local(last)]
            return self.encoder.finish(_first_tokens(layer, hidden, runs, bias))
        return self._pool(self.encoder.finish(hidden), lengths)

    def _pool(self, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """Reduce (N, D) to (B, D)."""
        sizes = torch.tensor(lengths, device=hidden.device)
        if self.config.pooling == "cls":
            return hidden[sizes.cumsum(0) - sizes]
        if self.config.pooling == "last":
            return hidden[sizes.cumsum(0) - 1]
        runs = runs_of(lengths)
        return torch.cat(
            [
                piece.view(run.count, run.length, -1).float().mean(dim=1)
                for piece, run in zip(split_runs(hidden, runs), runs, strict=True)
            ]
        ).to(hidden.dtype)


def _first_tokens(
    layer: EncoderLayer, hidden: Tensor, runs: Sequence[Run], biases: Sequence[AttentionBias]
) -> Tensor:
    """Compute a layer for the first token of every sequence: (N, D) -> (B, D), in evaluation mode."""
    attention, size = layer.attention, hidden.shape[1]
    starts = torch.cat([torch.arange(run.start, run.stop, run.length, device=hidden.device) for run in runs])
    residual = hidden[starts]  # (B, D)
    read = layer.attention_norm(hidden) if layer.norm_first else hidden
    weight, bias = whole_weight(attention.qkv), attention.qkv.bias
    query_bias, key_value_bias = (None, None) if bias is None else (bias[:size], bias[size:])
    queries = F.linear(read[starts], weight[:size], query_bias)  # (B, D)
    keys_values = F.linear(read, weight[size:], key_value_bias)  # (N, 2D)
    heads, width = attention.num_heads, attention.head_size
    contexts, done = [], 0
    for run, added in zip(runs, biases, strict=True):
        query = queries[done : done + run.count].view(run.count, 1, heads, width).transpose(1, 2)
        pair = keys_values[run.start : run.stop].view(run.count, run.length, 2, heads, width)
        key, value = pair.permute(2, 0, 3, 1, 4)  # (count, H, T, d) each
        if added.rotary is not None:  # the first token's query stands at position 0, which turns nothing
            key = rotate(key, added.rotary)
        mask = None if added.mask is None else added.mask[..., :1, :]
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        contexts.append(context.reshape(run.count, -1))  # (count, H, 1, d) -> (count, D)
        done += run.count
    attended: Tensor = residual + attention.out(torch.cat(contexts))
    if layer.norm_first:
        out: Tensor = attended + layer.feed_forward(layer.mlp_norm(attended), runs_of([1] * len(starts)))
    else:
        attended = layer.attention_norm(attended)
        out = layer.mlp_norm(attended + layer.feed_forward(attended, runs_of([1] * len(starts))))
    return out
