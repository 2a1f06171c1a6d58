"""The pieces of a decoder's layer: causal self-attention, cross-attention, and what both remember from token to token.

Tokens are packed, as in the encoder: linear layers and norms see real tokens only. For attention a `TokenLayout` spreads them out into
a padded table of rows and collects them again. Self-attention's rows are the sequences. Cross-attention's rows are the sources:
all sequences of one source (several targets in training, beams or samples in generation) stand in its row, one after another,
so that its keys and values are there once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.decoder_config import DecoderConfig
from embedkit.model.dropout import dropout
from embedkit.model.feed_forward import FeedForward
from embedkit.model.norms import layer_norm


@dataclass(frozen=True)
class TokenLayout:
    """Where N packed tokens stand in a padded table: `places` (N,) in [0, rows · width); None where they fill it in order."""

    rows: int
    width: int
    places: Tensor | None

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device, *, to_the_right: bool = False) -> TokenLayout:
        """Lay sequences into one row each, at its start or at its end."""
        width = max(lengths, default=0)
        if all(length == width for length in lengths):
            return cls(len(lengths), width, None)
        sizes = torch.tensor(lengths, device=device)
        rows = torch.arange(len(lengths), device=device)
        first = rows * width + (width - sizes if to_the_right else 0)
        starts = sizes.cumsum(0) - sizes
        shift = torch.repeat_interleave(first - starts, sizes)  # (N,)
        return cls(len(lengths), width, torch.arange(len(shift), device=device) + shift)

    def spread(self, packed: Tensor) -> Tensor:
        """(N, W) -> (rows, width, W), zeros where no token stands."""
        if self.places is not None:
            table = packed.new_zeros(self.rows * self.width, packed.shape[1])
            packed = table.index_copy(0, self.places, packed)
        return packed.view(self.rows, self.width, -1)

    def collect(self, table: Tensor) -> Tensor:
        """(rows, width, W) -> (N, W)."""
        flat = table.reshape(self.rows * self.width, -1)
        return flat if self.places is None else flat.index_select(0, self.places)

    def filled(self, device: torch.device) -> Tensor | None:
        """Return (rows, width) bool, True where a token stands; None where one stands everywhere."""
        if self.places is None:
            return None
        table = torch.zeros(self.rows * self.width, dtype=torch.bool, device=device)
        return table.index_fill(0, self.places, True).view(self.rows, self.width)


@dataclass(frozen=True)
class EncodedSource:
    """What the decoder reads of B sources: their M token vectors, packed, and where they stand.

    Shapes:
        hidden: (M, E); mask: (B, 1, 1, S) bool, True for real tokens, None where all are
    """

    hidden: Tensor
    layout: TokenLayout
    mask: Tensor | None


@dataclass(frozen=True)
class Sight:
    """What each token of a sequence may look at in it.

    Either all before it (`causal`), or what `mask` says, or everything. A mask is bool, (R, 1, T, T of the cache), or has what is added
    to the scores of all heads, (1 or R, H, T, T of the cache).
    """

    causal: bool
    mask: Tensor | None = None


@dataclass
class LayerCache:
    """What a layer keeps of R sequences: (R, H, T, d) keys and values of their tokens, (B, H, S, d) of the B sources'."""

    keys: Tensor | None = None
    values: Tensor | None = None
    of_source: tuple[Tensor, Tensor] | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of new tokens; return all."""
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
        else:
            self.keys = torch.cat((self.keys, keys), dim=2)
            self.values = torch.cat((self.values, values), dim=2)
        return self.keys, self.values

    def take(self, rows: Tensor) -> None:
        """Let row i go on from what was row `rows[i]`."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]

    def take_sources(self, sources: Tensor) -> None:
        if self.of_source is not None:
            keys, values = self.of_source
            self.of_source = keys[sources], values[sources]


class CausalSelfAttention(nn.Module):
    """Multi-head attention of each token to itself and to those before it.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.3.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.num_heads, self.head_size = config.num_attention_heads, config.head_size
        self.dropout, self.scale = config.attention_probs_dropout_prob, config.attention_scale
        self.qkv = nn.Linear(config.hidden_size, 3 * config.attention_size, bias=config.attention_bias)
        self.out = nn.Linear(config.attention_size, config.hidden_size, bias=config.attention_bias)

    def forward(self, hidden: Tensor, layout: TokenLayout, sight: Sight, cache: LayerCache | None) -> Tensor:
        """Let N packed tokens attend: (N, D) -> (N, D)."""
        table = layout.spread(self.qkv(hidden))  # (R, T, 3D)
        split = table.view(layout.rows, layout.width, 3, self.num_heads, self.head_size)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (R, H, T, d) each
        if cache is not None:
            key, value = cache.extend(key, value)
        mask = sight.mask
        if mask is not None and mask.is_floating_point():
            mask = mask.to(query.dtype)
        context = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=sight.causal,
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        out: Tensor = self.out(layout.collect(context.transpose(1, 2).flatten(2)))
        return out


class CrossAttention(nn.Module):
    """Multi-head attention of each token to all tokens of its source.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.3.
    """

    def __init__(self, config: DecoderConfig, encoder_size: int) -> None:
        super().__init__()
        self.num_heads, self.head_size = config.num_attention_heads, config.head_size
        self.dropout, self.scale = config.attention_probs_dropout_prob, config.attention_scale
        size, bias = config.attention_size, config.attention_bias
        self.query = nn.Linear(config.hidden_size, size, bias=bias)
        self.key_value = nn.Linear(encoder_size, 2 * size, bias=bias)
        self.out = nn.Linear(size, config.hidden_size, bias=bias)

    def keys_values(self, source: EncodedSource) -> tuple[Tensor, Tensor]:
        """Project the source's token vectors: (M, E) -> two of (B, H, S, d)."""
        layout = source.layout
        table = layout.spread(self.key_value(source.hidden))  # (B, S, 2D)
        split = table.view(layout.rows, layout.width, 2, self.num_heads, self.head_size)
        keys, values = split.permute(2, 0, 3, 1, 4)
        return keys, values

    def forward(
        self, hidden: Tensor, layout: TokenLayout, keys_values: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> Tensor:
        """Let N packed tokens attend: (N, D) -> (N, D); `layout` has a row for each source."""
        table = layout.spread(self.query(hidden))  # (B, T, D)
        query = table.view(layout.rows, layout.width, self.num_heads, self.head_size).transpose(1, 2)
        context = F.scaled_dot_product_attention(
            query,
            *keys_values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        out: Tensor = self.out(layout.collect(context.transpose(1, 2).flatten(2)))
        return out


@dataclass(frozen=True)
class Places:
    """Where the tokens that go through the decoder together stand: in their sequences, and in the rows of their sources."""

    sequences: TokenLayout
    sources: TokenLayout | None
    sight: Sight


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention where there is a source, feed-forward; each with a residual and a norm, before or after."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        pieces = config.pieces()
        self.norm_first, self.dropout = config.norm_first, config.hidden_dropout_prob
        self.attention = CausalSelfAttention(config)
        self.attention_norm = layer_norm(pieces, config.hidden_size)
        self.cross_attention: CrossAttention | None = None
        self.cross_attention_norm: nn.Module | None = None
        if config.encoder_size is not None:
            self.cross_attention = CrossAttention(config, config.encoder_size)
            self.cross_attention_norm = layer_norm(pieces, config.hidden_size)
        self.mlp = FeedForward(pieces)
        self.mlp_norm = layer_norm(pieces, config.hidden_size)

    def forward(
        self, hidden: Tensor, places: Places, source: EncodedSource | None, cache: LayerCache | None
    ) -> Tensor:
        read = self.attention_norm(hidden) if self.norm_first else hidden
        hidden = self._add(
            hidden, self.attention(read, places.sequences, places.sight, cache), self.attention_norm
        )
        if self.cross_attention is not None and self.cross_attention_norm is not None:
            assert source is not None
            assert places.sources is not None
            read = self.cross_attention_norm(hidden) if self.norm_first else hidden
            keys_values = self._keys_values(self.cross_attention, source, cache)
            attended = self.cross_attention(read, places.sources, keys_values, source.mask)
            hidden = self._add(hidden, attended, self.cross_attention_norm)
        read = self.mlp_norm(hidden) if self.norm_first else hidden
        return self._add(hidden, self.mlp(read), self.mlp_norm)

    def _add(self, hidden: Tensor, change: Tensor, norm: nn.Module) -> Tensor:
        added = dropout(change, self.dropout if self.training else 0.0, residual=hidden)
        normed: Tensor = added if self.norm_first else norm(added)
        return normed

    @staticmethod
    def _keys_values(
        attention: CrossAttention, source: EncodedSource, cache: LayerCache | None
    ) -> tuple[Tensor, Tensor]:
        if cache is None:
            return attention.keys_values(source)
        if cache.of_source is None:
            cache.of_source = attention.keys_values(source)
        return cache.of_source
