"""The optimizer, the learning rate as a pure function of the step, and the running mean of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from embedkit.training.engine.recipes import OptimRecipe


def learning_rate(step: int, steps: int, recipe: OptimRecipe) -> float:
    """Return the rate of optimizer step `step`, counted from 0, of a run of `steps`.

    With 10 steps, 2 of them warm-up, linear and lr 1: 0.5, 1, then 1, 7/8, 6/8 … 1/8 and 0 after the last.
    """
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)  # from 0 to 1
    match recipe.schedule:
        case "constant":
            share = 1.0
        case "linear":
            share = 1 - done
        case "cosine":
            share = (1 + math.cos(math.pi * min(1.0, done))) / 2
        case "wsd":
            left = (steps - step) / max(1.0, recipe.decay_share * steps)
            share = min(1.0, left)
    return recipe.lr * (recipe.final_lr + (1 - recipe.final_lr) * max(0.0, share))


def make_optimizer(module: nn.Module, recipe: OptimRecipe) -> torch.optim.AdamW:
    """Make AdamW over what is to be trained; vectors (biases, norms) do not decay, as in BERT's own code."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.eps,
        fused=True,
    )


class AveragedWeights:
    """A running mean of a module's trained weights: after each step mean += (1 - decay) · (weight - mean).

    Early on the decay is (1 + n) / (10 + n), so that the mean forgets the start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.means = {name: p.detach().clone() for name, p in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.means.values()), list(self._weights.values()), weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the means in place of the weights, and the weights back afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            held: Tensor = weight.detach().clone()
            weight.copy_(self.means[name])
            self.means[name].copy_(held)
