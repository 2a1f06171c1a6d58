"""Experts against transformers' Mixtral and Switch blocks, and the routers' losses against theirs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from embedkit.model.experts import ExpertFeedForward
from embedkit.model.feed_forward import FeedForward
from embedkit.model.layers import runs_of
from embedkit.model.routing import recording
from embedkit.model.routing_config import ExpertsConfig
from embedkit.training.losses import load_balance, router_z
from tests.tiny import tiny_config

pytestmark = pytest.mark.parity
pytest.importorskip("transformers", reason="the reference is not installed")

from transformers import MixtralConfig, SwitchTransformersConfig  # noqa: E402  (after the check)
from transformers.models.mixtral.modeling_mixtral import (  # noqa: E402
    MixtralSparseMoeBlock,
    load_balancing_loss_func,
)
from transformers.models.switch_transformers.modeling_switch_transformers import (  # noqa: E402
    SwitchTransformersSparseMLP,
    router_z_loss_func,
)

TOLERANCE = 1e-5  # float32 sums in another order
HIDDEN, INNER, EXPERTS = 32, 24, 5


def ours(*, gated: bool, activation: str, **fields: object) -> ExpertFeedForward:
    config = tiny_config(
        gated_mlp=gated,
        mlp_bias=False,
        hidden_act=activation,
        experts=ExpertsConfig(num_experts=EXPERTS, intermediate_size=INNER, **fields),  # type: ignore[arg-type] # a test names them
    )
    return ExpertFeedForward(config, name="layer 1")


def experts_of(module: ExpertFeedForward) -> list[FeedForward]:
    return [expert for expert in module.experts if isinstance(expert, FeedForward)]


def batch(seed: int = 0) -> Tensor:
    return torch.randn(3, 11, HIDDEN, generator=torch.Generator().manual_seed(seed))


def test_the_block_of_mixtral() -> None:
    """Two of five gated experts, whose probabilities are scaled to 1; value and gradients."""
    torch.manual_seed(0)
    theirs = MixtralSparseMoeBlock(
        MixtralConfig(
            hidden_size=HIDDEN,
            intermediate_size=INNER,
            num_local_experts=EXPERTS,
            num_experts_per_tok=2,
            hidden_act="silu",
        )
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    module = ours(gated=True, activation="silu", num_experts_per_tok=2, norm_topk_prob=True).eval()
    with torch.no_grad():
        module.router.weight.copy_(theirs.gate.weight)
        for number, expert in enumerate(experts_of(module)):
            expert.up.weight.copy_(theirs.experts.gate_up_proj[number])
            expert.down.weight.copy_(theirs.experts.down_proj[number])
    hidden = batch()
    mine = hidden.flatten(0, 1).requires_grad_()
    yours = hidden.clone().requires_grad_()
    with recording() as log:
        found = module(mine, runs_of([11] * 3))
    expected = theirs(yours)
    torch.testing.assert_close(found, expected.flatten(0, 1), rtol=0, atol=TOLERANCE)
    torch.autograd.backward(found.square().sum())
    torch.autograd.backward(expected.square().sum())
    assert mine.grad is not None
    assert yours.grad is not None
    torch.testing.assert_close(mine.grad, yours.grad.flatten(0, 1), rtol=1e-4, atol=TOLERANCE)
    torch.testing.assert_close(module.router.weight.grad, theirs.gate.weight.grad, rtol=1e-4, atol=1e-4)
    # Their loss counts each of the two choices as a whole token: it is twice ours, which is 1 at balance whatever is chosen.
    logits, chosen = log.choices[0].logits, log.choices[0].chosen
    balance = load_balance(logits, torch.bincount(chosen.flatten(), minlength=EXPERTS), count=len(logits))
    wanted = load_balancing_loss_func((logits,), EXPERTS, 2)
    assert isinstance(wanted, Tensor)
    torch.testing.assert_close(2 * balance, wanted)


@pytest.mark.parametrize("capacity", [64, 3])
def test_the_block_of_switch_with_and_without_dropped_tokens(capacity: int) -> None:
    """One of five experts, weighted by its probability; an expert takes `capacity` tokens of a sequence, first come first served."""
    torch.manual_seed(0)
    theirs = SwitchTransformersSparseMLP(
        SwitchTransformersConfig(
            d_model=HIDDEN,
            d_ff=INNER,
            num_experts=EXPERTS,
            expert_capacity=capacity,
            dense_act_fn="relu",
            dropout_rate=0.0,
            router_jitter_noise=0.0,
        )
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    factor = EXPERTS * capacity / 11  # ⌈factor · 11 / 5⌉ is the capacity
    module = ours(gated=False, activation="relu", num_experts_per_tok=1, capacity_factor=factor).train()
    with torch.no_grad():
        module.router.weight.copy_(theirs.router.classifier.weight)
        for number, expert in enumerate(experts_of(module)):
            expert.up.weight.copy_(theirs.experts[f"expert_{number}"].wi.weight)
            expert.down.weight.copy_(theirs.experts[f"expert_{number}"].wo.weight)
        hidden = batch()
        with recording() as log:
            found = module(hidden.flatten(0, 1), runs_of([11] * 3))
        expected = theirs(hidden)
        taken, _, logits = theirs.router(hidden)
    torch.testing.assert_close(found, expected.flatten(0, 1), rtol=0, atol=TOLERANCE)
    kept = log.choices[0].kept
    assert kept is not None
    assert bool(kept.all()) == (capacity == 64)
    assert torch.equal(kept[:, 0], taken.sum(dim=-1).flatten().bool())
    flat = logits.flatten(0, 1)
    torch.testing.assert_close(router_z(flat, count=len(flat)), router_z_loss_func(logits))
