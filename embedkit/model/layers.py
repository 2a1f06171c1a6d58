"""The pieces of a layer: runs of equal length, attention, feed-forward.

Tokens are *packed*: all sequences of a batch lie one after another in one (N, D) tensor without padding, so that
every linear layer and norm is one large product over real tokens only. Attention alone must know where sequences
end. It walks over *runs* of neighbouring sequences of one length; sorted batches have few of them. A padded
(B, T) batch is one run with a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.attention import attend_packed
from embedkit.model.attention_form import AttentionForm
from embedkit.model.config import EncoderConfig
from embedkit.model.disentangled import Distances, disentangled_scores
from embedkit.model.dropout import dropout
from embedkit.model.feed_forward import FeedForward
from embedkit.model.norms import layer_norm
from embedkit.model.positions import rotate


@dataclass(frozen=True)
class Run:
    """`count` sequences of `length` tokens each, one after another from token `start`.

    `attention_mask` (count, length) is bool, True for real tokens; None where all are.
    """

    start: int
    count: int
    length: int
    attention_mask: Tensor | None = None

    @property
    def stop(self) -> int:
        return self.start + self.count * self.length


def runs_of(lengths: Sequence[int]) -> list[Run]:
    """Group neighbouring sequences of equal length: [3, 3, 5] -> two runs, of 2 × 3 and 1 × 5 tokens."""
    runs: list[Run] = []
    start = 0
    for length, group in groupby(lengths):
        runs.append(Run(start, len(list(group)), length))
        start = runs[-1].stop
    return runs


def split_runs(packed: Tensor, runs: Sequence[Run]) -> Sequence[Tensor]:
    """Cut packed rows (N, …) into one piece a run.

    In one operation: the gradient of a split is one concatenation, that of a slice a whole tensor of zeros for every run.
    """
    return torch.split(packed, [run.stop - run.start for run in runs])


@dataclass(frozen=True)
class AttentionBias:
    """What attention adds to its scores in one run: a mask and position information, shared by layers of a kind.

    `mask` broadcasts to (count, H, T, T): bool (True: may attend) or a float that is added; None: all may attend, or, where it is
    `causal`, all that stand before. `distances` are those of disentangled attention.
    """

    mask: Tensor | None
    rotary: tuple[Tensor, Tensor] | None
    causal: bool = False
    distances: Distances | None = None

    def full_mask(self, length: int, device: torch.device) -> Tensor | None:
        """Return the mask with what `causal` says."""
        if not self.causal:
            return self.mask
        return torch.ones(length, length, dtype=torch.bool, device=device).tril()


class SelfAttention(nn.Module):
    """Multi-head self-attention with the three input projections in one product; `form` computes what is not the usual.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.num_heads, self.key_value_heads = config.num_attention_heads, config.key_value_heads
        self.head_size, self.scale = config.head_size, config.attention_scale
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(hidden, config.qkv_size, bias=config.attention_bias)
        self.out = nn.Linear(config.query_size, hidden, bias=config.out_bias)
        self.form = AttentionForm(config)
        query_size, key_size = config.qk_norm_sizes
        self.query_norm = layer_norm(config, query_size) if config.qk_norm else None
        self.key_norm = layer_norm(config, key_size) if config.qk_norm else None
        self.norm_over_heads = config.qk_norm_over_heads
        apart = config.disentangled is not None and not config.disentangled.share_att_key
        self.position_qk = nn.Linear(hidden, 2 * config.query_size, bias=True) if apart else None
        # What a gradient written by hand computes: plain dot products, each head with keys and values of its own.
        self.plain = (
            self.key_value_heads == self.num_heads
            and (not config.qk_norm or config.qk_norm_over_heads)
            and config.query_pre_attn_scalar is None
            and config.disentangled is None
        )

    def project(
        self, projected: Tensor, run: Run, rotary: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split one run's projections (count·T, W) into query, key and value, each (count, H, T, d)."""
        groups = self.num_heads // self.key_value_heads
        heads = projected.view(run.count, run.length, -1, self.head_size).transpose(1, 2)
        query, key, value = torch.split(
            heads, [self.num_heads, self.key_value_heads, self.key_value_heads], dim=1
        )
        if self.query_norm is not None and self.key_norm is not None and not self.norm_over_heads:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        if groups > 1:
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        return query, key, value

    def mask(self, query: Tensor, key: Tensor, bias: AttentionBias) -> Tensor | None:
        """Return a run's mask with what disentangled attention adds to the scores."""
        if bias.distances is None:
            return bias.mask
        added = (
            disentangled_scores(query, key, self._distance_heads(bias.distances), bias.distances) * self.scale
        )
        if bias.mask is None:
            return added
        return added.masked_fill(~bias.mask, -torch.inf)

    def _distance_heads(self, distances: Distances) -> tuple[Tensor, Tensor]:
        """Return queries and keys of the distances' vectors, (H, 2·span, d) each."""
        size = self.num_heads * self.head_size
        if self.position_qk is not None:
            both = self.position_qk(distances.vectors)
        else:
            bias = None if self.qkv.bias is None else self.qkv.bias[: 2 * size]
            both = F.linear(distances.vectors, self.qkv.weight[: 2 * size], bias)
        query, key = both.view(len(both), 2, self.num_heads, self.head_size).permute(1, 2, 0, 3)
        return query, key

    def rotate_packed(
        self, projected: Tensor, runs: Sequence[Run], biases: Sequence[AttentionBias]
    ) -> Tensor:
        """Rotate the queries and keys among the projections (N, 3D)."""
        pieces = []
        for piece, run, bias in zip(split_runs(projected, runs), runs, biases, strict=True):
            assert bias.rotary is not None
            cos, sin = (table[:, None, None] for table in bias.rotary)  # (T, 1, 1, d)
            wide = piece.view(run.count, run.length, 3, self.num_heads, self.head_size)
            rotated = rotate(wide[:, :, :2], (cos, sin))
            pieces.append(torch.cat((rotated, wide[:, :, 2:]), dim=2).view(len(piece), -1))
        return torch.cat(pieces)

    def forward(self, hidden: Tensor, runs: Sequence[Run], biases: Sequence[AttentionBias]) -> Tensor:
        """Let every token attend within its sequence: (N, D) -> (N, D)."""
        projected = self._projected(hidden)
        probability = self.dropout if self.training else 0.0
        # torch's fused attention is the faster one but for its gradient on a CPU, and for dropout there.
        by_hand = (
            self.plain and self.form.fused and all(bias.mask is None and not bias.causal for bias in biases)
        )
        if by_hand and hidden.device.type == "cpu" and (projected.requires_grad or probability):
            if any(bias.rotary is not None for bias in biases):
                projected = self.rotate_packed(projected, runs, biases)
            counts = [(run.count, run.length) for run in runs]
            attended: Tensor = self.out(
                attend_packed(projected, counts, num_heads=self.num_heads, dropout=probability)
            )
            return attended
        contexts = []
        for piece, run, bias in zip(split_runs(projected, runs), runs, biases, strict=True):
            query, key, value = self.project(piece, run, bias.rotary)
            if self.form.fused:
                context = F.scaled_dot_product_attention(
                    query,
                    key,
                    value,
                    attn_mask=self.mask(query, key, bias),
                    dropout_p=probability,
                    is_causal=bias.causal,
                    scale=self.scale,
                )
            else:
                context = self.form(
                    (query, key, value),
                    mask=bias.full_mask(run.length, query.device),
                    attention_mask=run.attention_mask,
                    probability=probability,
                )
            # (count, H, T, d) -> (count·T, D)
            contexts.append(context.transpose(1, 2).reshape(run.count * run.length, -1))
        out: Tensor = self.out(contexts[0] if len(contexts) == 1 else torch.cat(contexts))
        return out

    def weights(self, hidden: Tensor, run: Run, bias: AttentionBias) -> Tensor:
        """Return the attention probabilities of one run, (count, H, T, T): rows are queries and sum to 1.

        Raises:
            ValueError: of this form of attention there are none.
        """
        query, key, _ = self.project(self._projected(hidden), run, bias.rotary)
        if bias.distances is None:
            mask = bias.full_mask(run.length, query.device)
        else:
            mask = self.mask(query, key, bias)
        return self.form.weights(query, key, mask=mask, attention_mask=run.attention_mask)

    def _projected(self, hidden: Tensor) -> Tensor:
        projected: Tensor = self.qkv(hidden)  # (N, 3D)
        if self.query_norm is not None and self.key_norm is not None and self.norm_over_heads:
            own = self.key_value_heads * self.head_size
            query, key, value = torch.split(projected, [self.num_heads * self.head_size, own, own], dim=1)
            projected = torch.cat((self.query_norm(query), self.key_norm(key), value), dim=1)
        return self.form.turned(projected) if self.form.kind == "bilinear" else projected


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each with a residual and a norm: after it (BERT), before (ModernBERT), or both (Gemma)."""

    def __init__(
        self, config: EncoderConfig, *, first: bool = False, experts: nn.Module | None = None
    ) -> None:
        """`experts` stand in place of the feed-forward part: (N, D) and runs -> (N, D)."""
        super().__init__()
        self.norm_first = config.norm_first
        self.attention = SelfAttention(config)
        self.mlp = FeedForward(config) if experts is None else experts
        # ModernBERT's first layer has no norm before its attention: the embeddings were just normed.
        skip = config.norm_first and first and config.embedding_norm
        self.attention_norm = nn.Identity() if skip else layer_norm(config, config.hidden_size)
        self.mlp_norm = layer_norm(config, config.hidden_size)
        self.second_attention_norm = (
            layer_norm(config, config.hidden_size) if config.second_attention_norm else None
        )
        self.attention_post_norm = layer_norm(config, config.hidden_size) if config.post_norm else None
        self.mlp_post_norm = layer_norm(config, config.hidden_size) if config.post_norm else None
        self.dropout = config.hidden_dropout_prob

    def forward(self, hidden: Tensor, runs: Sequence[Run], biases: Sequence[AttentionBias]) -> Tensor:
        probability = self.dropout if self.training else 0.0
        if self.norm_first:
            attended = self.attention(self.attention_norm(hidden), runs, biases)
            if self.attention_post_norm is not None:
                attended = self.attention_post_norm(attended)
            hidden = dropout(attended, probability, residual=hidden)
            fed = self.feed_forward(self.mlp_norm(hidden), runs)
            if self.mlp_post_norm is not None:
                fed = self.mlp_post_norm(fed)
            out: Tensor = dropout(fed, probability, residual=hidden)
        else:
            attended = self.attention(hidden, runs, biases)
            normed = self.attention_norm(dropout(attended, probability, residual=hidden))
            if self.second_attention_norm is not None:
                normed = self.second_attention_norm(hidden + normed)
            hidden = normed
            out = self.mlp_norm(dropout(self.feed_forward(hidden, runs), probability, residual=hidden))
        return out

    def feed_forward(self, hidden: Tensor, runs: Sequence[Run]) -> Tensor:
        """Compute each token by itself, or by its experts: (N, D) -> (N, D)."""
        out: Tensor = self.mlp(hidden) if isinstance(self.mlp, FeedForward) else self.mlp(hidden, runs)
        return out
