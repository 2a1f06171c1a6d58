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
from embedkit.model.config import Activation, EncoderConfig
from embedkit.model.dropout import dropout
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


def activate(x: Tensor, activation: Activation) -> Tensor:
    match activation:
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "relu":
            return F.relu(x)
        case "silu":
            return F.silu(x)


@dataclass(frozen=True)
class AttentionBias:
    """What attention adds to its scores in one run: a mask and position information, shared by layers of a kind.

    `mask` broadcasts to (count, H, T, T): bool (True: may attend) or a float that is added; None: all may attend.
    """

    mask: Tensor | None
    rotary: tuple[Tensor, Tensor] | None


class SelfAttention(nn.Module):
    """Multi-head self-attention with the three input projections in one product; `form` computes what is not the usual.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.head_size = config.head_size
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=config.attention_bias)
        self.out = nn.Linear(hidden, hidden, bias=config.attention_bias)
        self.form = AttentionForm(config)

    def project(
        self, hidden: Tensor, run: Run, rotary: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split one run's projections (count·T, 3D) into query, key and value, each (count, H, T, d)."""
        split = hidden.view(run.count, run.length, 3, self.num_heads, self.head_size)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        return query, key, value

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
        by_hand = self.form.fused and all(bias.mask is None for bias in biases)
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
                    query, key, value, attn_mask=bias.mask, dropout_p=probability
                )
            else:
                context = self.form(
                    (query, key, value),
                    mask=bias.mask,
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
        return self.form.weights(query, key, mask=bias.mask, attention_mask=run.attention_mask)

    def _projected(self, hidden: Tensor) -> Tensor:
        projected: Tensor = self.qkv(hidden)  # (N, 3D)
        return self.form.turned(projected) if self.form.kind == "bilinear" else projected


class FeedForward(nn.Module):
    """Two linear layers with an activation between them; gated where the config says so.

    Source: Vaswani et al. 2017, eq. 2; the gate as in Shazeer 2020, https://arxiv.org/abs/2002.05202, eq. 6 (GEGLU).
    """

    def __init__(self, config: EncoderConfig, *, width: int | None = None) -> None:
        """`width` is that of the inner layer; None: the config's."""
        super().__init__()
        self.activation: Activation = config.hidden_act
        self.gated = config.gated_mlp
        width = config.intermediate_size if width is None else width
        self.up = nn.Linear(config.hidden_size, width * (2 if config.gated_mlp else 1), bias=config.mlp_bias)
        self.down = nn.Linear(width, config.hidden_size, bias=config.mlp_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.up(hidden)
        if self.gated:
            value, gate = inner.chunk(2, dim=-1)
            inner = activate(value, self.activation) * gate
        else:
            inner = activate(inner, self.activation)
        out: Tensor = self.down(inner)
        return out


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each with a residual and a layer norm: after it (BERT) or before (ModernBERT)."""

    def __init__(
        self, config: EncoderConfig, *, first: bool = False, experts: nn.Module | None = None
    ) -> None:
        """`experts` stand in place of the feed-forward part: (N, D) and runs -> (N, D)."""
        super().__init__()
        self.norm_first = config.norm_first
        self.attention = SelfAttention(config)
        self.mlp = FeedForward(config) if experts is None else experts
        # ModernBERT's first layer has no norm before its attention: the embeddings were just normed.
        skip = config.norm_first and first
        self.attention_norm = nn.Identity() if skip else layer_norm(config, config.hidden_size)
        self.mlp_norm = layer_norm(config, config.hidden_size)
        self.dropout = config.hidden_dropout_prob

    def forward(self, hidden: Tensor, runs: Sequence[Run], biases: Sequence[AttentionBias]) -> Tensor:
        probability = self.dropout if self.training else 0.0
        if self.norm_first:
            attended = self.attention(self.attention_norm(hidden), runs, biases)
            hidden = dropout(attended, probability, residual=hidden)
            fed = self.feed_forward(self.mlp_norm(hidden), runs)
            out: Tensor = dropout(fed, probability, residual=hidden)
        else:
            attended = self.attention(hidden, runs, biases)
            hidden = self.attention_norm(dropout(attended, probability, residual=hidden))
            out = self.mlp_norm(dropout(self.feed_forward(hidden, runs), probability, residual=hidden))
        return out

    def feed_forward(self, hidden: Tensor, runs: Sequence[Run]) -> Tensor:
        """Compute each token by itself, or by its experts: (N, D) -> (N, D)."""
        out: Tensor = self.mlp(hidden) if isinstance(self.mlp, FeedForward) else self.mlp(hidden, runs)
        return out


def layer_norm(config: EncoderConfig, size: int) -> nn.LayerNorm:
    return nn.LayerNorm(size, eps=config.layer_norm_eps, bias=config.norm_bias)
