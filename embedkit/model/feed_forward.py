"""The feed-forward part of a layer, and its activations."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.config import Activation, EncoderConfig


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


class FeedForward(nn.Module):
    """Two linear layers with an activation between them; gated where the config says so.

    Source: Vaswani et al. 2017, eq. 2; the gate as in Shazeer 2020, https://arxiv.org/abs/2002.05202, eq. 6 (GEGLU).
    """

    def __init__(self, config: EncoderConfig, *, width: int | None = None) -> None:
        """`width` is that of the inner layer; None: the config's."""
        super().__init__()
        self.activation: Activation = config.hidden_act
        self.gated, self.gate_second = config.gated_mlp, config.gate_second
        width = config.intermediate_size if width is None else width
        self.up = nn.Linear(config.hidden_size, width * (2 if config.gated_mlp else 1), bias=config.mlp_bias)
        self.down = nn.Linear(width, config.hidden_size, bias=config.down_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.up(hidden)
        if self.gated:
            value, gate = inner.chunk(2, dim=-1)
            if self.gate_second:
                value, gate = gate, value
            inner = activate(value, self.activation) * gate
        else:
            inner = activate(inner, self.activation)
        out: Tensor = self.down(inner)
        return out
