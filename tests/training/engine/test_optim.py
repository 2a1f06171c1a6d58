from __future__ import annotations

import pytest
import torch
from torch import nn

from embedkit.training.engine.optim import AveragedWeights, learning_rate, make_optimizer
from embedkit.training.engine.recipes import OptimRecipe


def rates(schedule: str, **fields: float) -> list[float]:
    recipe = OptimRecipe(lr=1.0, warmup_steps=2, schedule=schedule, **fields)  # type: ignore[arg-type] # named by the test
    return [round(learning_rate(step, 10, recipe), 4) for step in range(10)]


def test_schedules_by_hand() -> None:
    """Ten steps, two of warm-up: 0.5, 1; then eight steps down from 1."""
    assert rates("constant") == [0.5, *[1.0] * 9]
    assert rates("linear") == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    # (1 + cos(pi · k / 8)) / 2 for k from 0 to 7
    assert rates("cosine") == [0.5, 1.0, 1.0, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]
    # The last 40 % of ten steps are four: 4/4, 3/4, 2/4, 1/4.
    assert rates("wsd", decay_share=0.4) == [0.5, *[1.0] * 6, 0.75, 0.5, 0.25]
    assert rates("linear", final_lr=0.5)[-1] == 0.5625  # 0.5 + 0.5 · 0.125


def test_biases_and_norms_do_not_decay_and_frozen_weights_stay_out() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    module[2].requires_grad_(False)
    groups = make_optimizer(module, OptimRecipe(weight_decay=0.1)).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 1), (0.0, 3)]


def test_the_running_mean_follows_the_weights_and_is_swapped_in_and_out() -> None:
    """Step 0: decay min(0.5, 1/10) = 0.1, so 0 -> 0.9 · 1. Step 9: min(0.5, 10/19) = 0.5, so 0.9 -> (0.9 + 2) / 2."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    averaged = AveragedWeights(module, 0.5)
    nn.init.ones_(module.weight)
    averaged.update(0)
    assert averaged.means["weight"].item() == pytest.approx(0.9)
    nn.init.constant_(module.weight, 2.0)
    averaged.update(9)
    assert averaged.means["weight"].item() == pytest.approx(1.45)
    with averaged.applied():
        assert module.weight.item() == pytest.approx(1.45)
    assert module.weight.item() == 2.0
    assert torch.is_grad_enabled()
