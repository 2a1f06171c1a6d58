"""The norms of layers: torch's layer norm, and that by the root mean square."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embedkit.model.config import EncoderConfig


class RMSNorm(nn.Module):
    """Divide a vector by the root of the mean of its squares, taken in fp32, and multiply it by a weight.

    With `offset` that is 1 + weight, which starts at zero.
    Source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, eq. 4.
    """

    def __init__(self, size: int, *, eps: float, offset: bool = False) -> None:
        super().__init__()
        self.eps, self.offset = eps, offset
        self.weight = nn.Parameter(torch.zeros(size) if offset else torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return (normed * (self.weight + 1 if self.offset else self.weight)).to(x.dtype)


def layer_norm(config: EncoderConfig, size: int) -> nn.LayerNorm | RMSNorm:
    """Return a fresh norm of the config's kind."""
    if config.norm == "layer":
        return nn.LayerNorm(size, eps=config.layer_norm_eps, bias=config.norm_bias)
    return RMSNorm(size, eps=config.layer_norm_eps, offset=config.norm == "rms_offset")
