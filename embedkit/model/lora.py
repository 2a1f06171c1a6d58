"""Low-rank adaptation: frozen linear layers, each with the product of two narrow trained matrices beside it.

Source: Hu et al. 2022, https://arxiv.org/abs/2106.09685, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.encoder import TransformerEncoder

# The linear layers of a block by their names: queries, keys and values together, what follows attention, and the feed-forward layer.
TARGETS = ("qkv", "out", "up", "down")


class LoraLinear(nn.Linear):
    """y = x W' + b + scale · x A' B', of which only A and B are trained.

    Shapes:
        lora_a: (R, in_features), drawn at random; lora_b: (out_features, R), zeros, so that nothing changes at first
    """

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    scale: float
    dropout: float

    @classmethod
    def adapt(cls, layer: nn.Linear, *, rank: int, scale: float, dropout: float) -> None:
        """Make a plain layer one of these in place, under the same names."""
        layer.requires_grad_(False)
        layer.__class__ = cls
        assert isinstance(layer, cls)
        layer.scale, layer.dropout = scale, dropout
        a = torch.empty(rank, layer.in_features, device=layer.weight.device, dtype=torch.float32)
        nn.init.kaiming_uniform_(a, a=5**0.5)
        layer.lora_a = nn.Parameter(a)
        layer.lora_b = nn.Parameter(a.new_zeros(layer.out_features, rank))

    def forward(self, input: Tensor) -> Tensor:
        narrow = F.linear(F.dropout(input, self.dropout, self.training), self.lora_a)
        return F.linear(input, self.weight, self.bias) + self.scale * F.linear(narrow, self.lora_b)

    def whole_weight(self) -> Tensor:
        return self.weight + self.scale * self.lora_b @ self.lora_a

    def merge(self) -> None:
        """Become a plain layer again, whose weight has what the two matrices add."""
        with torch.no_grad():
            self.weight.copy_(self.whole_weight())
        del self.lora_a, self.lora_b
        self.__class__ = nn.Linear  # type: ignore[assignment] # as it was before


def whole_weight(layer: nn.Linear) -> Tensor:
    """Return a layer's weight with what is added to it, for what computes with a part of it."""
    return layer.whole_weight() if isinstance(layer, LoraLinear) else layer.weight


def add_lora(
    encoder: TransformerEncoder,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: Sequence[str] = TARGETS,
    seed: int = 0,
) -> int:
    """Freeze an encoder and adapt the linear layers of its blocks that `targets` name; return how many.

    `alpha` over the rank is what products are multiplied by; A is drawn from the seed.

    Raises:
        ValueError: the model has layers that compute with their weights in another way, or none of these.
    """
    config = encoder.config
    if config.routed is not None:
        raise ValueError(f"a model with {config.routed} shares its layers out; train all of its weights")
    if config.disentangled is not None:
        raise ValueError("disentangled attention reads its weights twice; train all of them")
    encoder.requires_grad_(False)
    found = [
        module
        for name, module in encoder.named_modules()
        if name.rpartition(".")[2] in targets and type(module) is nn.Linear
    ]
    if not found:
        raise ValueError(f"no layer of this model is called {', '.join(targets)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in found:
            LoraLinear.adapt(layer, rank=rank, scale=alpha / rank, dropout=dropout)
    return len(found)


def merge_lora(module: nn.Module) -> None:
    """Make every adapted layer a plain one, with the same outputs up to rounding."""
    for layer in list(module.modules()):
        if isinstance(layer, LoraLinear):
            layer.merge()
