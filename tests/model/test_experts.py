"""A mixture of experts: worked examples, a plain loop as its twin, capacity, noise, and no influence of other texts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedkit.model.encoder import TransformerEncoder
from embedkit.model.experts import ExpertFeedForward, places_in_line
from embedkit.model.feed_forward import FeedForward
from embedkit.model.layers import runs_of
from embedkit.model.routing import recording
from embedkit.model.routing_config import ExpertsConfig
from tests.finite_differences import assert_gradients
from tests.tiny import ROUTED_SHAPES, tiny_config

ROUNDING = 2e-5  # float32 sums in another order


def make(*, seed: int = 0, gated: bool = False, **fields: object) -> ExpertFeedForward:
    torch.manual_seed(seed)
    experts = ExpertsConfig(**({"num_experts": 4} | fields))  # type: ignore[arg-type] # a test names the fields it wants
    encoder = TransformerEncoder(
        tiny_config(experts=experts, num_hidden_layers=2, gated_mlp=gated, hidden_act="silu")
    )
    mlp = encoder.layer(1).mlp
    assert isinstance(mlp, ExpertFeedForward)
    return mlp


def experts_of(module: ExpertFeedForward) -> list[FeedForward]:
    return [expert for expert in module.experts if isinstance(expert, FeedForward)]


def by_loop(module: ExpertFeedForward, hidden: Tensor, lengths: list[int], *, capacity: bool) -> Tensor:
    """Compute the same token by token, choice by choice, as the papers say it."""
    config = module.config
    out = torch.zeros_like(hidden)
    start = 0
    for length in lengths:
        tokens = hidden[start : start + length]
        logits = tokens @ module.router.weight.T
        probabilities = torch.softmax(logits, dim=-1)
        room = [config.capacity(length) if capacity else length] * config.num_experts
        order = probabilities.argsort(dim=-1, descending=True)[:, : config.num_experts_per_tok]
        for choice in range(config.num_experts_per_tok):
            for place in range(length):
                expert = int(order[place, choice])
                if room[expert] == 0:
                    continue
                room[expert] -= 1
                weight = probabilities[place, expert]
                if config.norm_topk_prob:
                    weight = weight / probabilities[place, order[place]].sum()
                out[start + place] += weight * experts_of(module)[expert](tokens[place : place + 1])[0]
        start += length
    return out if module.shared is None else out + module.shared(hidden)


def test_two_experts_by_hand() -> None:
    """Scores (ln 3, 0): probabilities 3/4 and 1/4. Of one expert a token, the first gives 3/4 of its output.

    The experts' inner layers are relus of sums: of the token (1, 0) the first makes 2 · 1 = 2, the second would make 5.
    """
    config = tiny_config(
        hidden_size=2,
        num_attention_heads=1,
        hidden_act="relu",
        mlp_bias=False,
        experts=ExpertsConfig(num_experts=2, num_experts_per_tok=1, intermediate_size=1, every_n_layers=1),
    )
    module = ExpertFeedForward(config, name="layer 0")
    with torch.no_grad():
        module.router.weight.copy_(torch.tensor([[3.0, 0.0], [1.0, 0.0]]).log().nan_to_num(neginf=0))
        for expert, factor in zip(experts_of(module), (2.0, 5.0), strict=True):
            expert.up.weight.copy_(torch.tensor([[1.0, 1.0]]))
            expert.down.weight.copy_(torch.tensor([[factor], [0.0]]))
    hidden = torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(module(hidden, runs_of([1])), torch.tensor([[1.5, 0.0]]))
    # Two experts a token: 3/4 · 2 + 1/4 · 5 = 2.75.
    module.config = ExpertsConfig(num_experts=2, num_experts_per_tok=2, intermediate_size=1)
    torch.testing.assert_close(module(hidden, runs_of([1])), torch.tensor([[2.75, 0.0]]))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_experts_per_tok": 1},
        {"num_experts_per_tok": 4, "norm_topk_prob": True, "gated": True},
        {"norm_topk_prob": True, "shared_intermediate_size": 8},
        {"capacity_factor": 0.5, "shared_intermediate_size": 8},
        {"capacity_factor": 1.0, "num_experts_per_tok": 1, "gated": True},
    ],
)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_grouping_by_experts_equals_a_loop_over_tokens(
    fields: dict[str, object], lengths: list[int], seed: int
) -> None:
    module = make(**fields).train()  # type: ignore[arg-type] # fields of the config, and `gated`
    hidden = torch.randn(sum(lengths), 32, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for training in (True, False):
            module.train(training)
            expected = by_loop(module, hidden, lengths, capacity=training)
            torch.testing.assert_close(
                module(hidden, runs_of(lengths)), expected, rtol=0, atol=ROUNDING, msg=str(training)
            )


def test_a_line_before_each_expert_by_hand() -> None:
    """The example of `places_in_line`, and the same beside another sequence, which has lines of its own."""
    chosen = torch.tensor([[[0, 1], [0, 2], [1, 0]], [[1, 0], [1, 0], [1, 2]]])
    assert places_in_line(chosen, 3).tolist() == [
        [[0, 1], [1, 0], [0, 2]],
        [[0, 0], [1, 1], [2, 0]],
    ]


def test_what_is_beyond_the_capacity_is_dropped_counted_and_depends_on_its_own_sequence_alone() -> None:
    """Capacity ⌈.5 · 2 · 8 / 4⌉ = 2 tokens an expert, in each sequence of 8; outside of training there is none."""
    module = make(capacity_factor=0.5).train()
    hidden = torch.randn(24, 32)
    with torch.no_grad(), recording() as log:
        whole = module(hidden, runs_of([8, 8, 8]))
        alone = module(hidden[8:16], runs_of([8]))
    torch.testing.assert_close(whole[8:16], alone, rtol=0, atol=ROUNDING)
    first, second = log.choices
    assert first.kept is not None
    assert second.kept is not None
    for sequence in range(3):
        rows = slice(8 * sequence, 8 * sequence + 8)
        for expert in range(4):
            wanted = int((first.chosen[rows] == expert).sum())
            assert int((first.kept[rows] & (first.chosen[rows] == expert)).sum()) == min(2, wanted)
    assert not first.kept.all()
    assert torch.equal(first.kept[8:16], second.kept)
    with torch.no_grad(), recording() as log:
        module.eval()(hidden, runs_of([24]))
    assert log.choices[0].kept is None


@pytest.mark.parametrize("fields", [{}, {"norm_topk_prob": True, "capacity_factor": 0.75}])
def test_gradients_are_those_of_finite_differences(fields: dict[str, object]) -> None:
    module = make(**({"shared_intermediate_size": 4, "intermediate_size": 4} | fields)).double().train()  # type: ignore[arg-type] # as above
    hidden = torch.randn(6, 32, dtype=torch.float64, requires_grad=True)
    router = module.router.weight
    with recording() as log:
        module(hidden, runs_of([6]))
    used = int(log.choices[0].chosen[0, 0])
    expert = experts_of(module)[used].up.weight

    def run(hidden: Tensor, router: Tensor, expert: Tensor) -> Tensor:
        out: Tensor = module(hidden, runs_of([4, 2]))
        return out

    assert_gradients(run, [hidden, router, expert])


def test_an_expert_without_tokens_has_a_gradient_of_zero() -> None:
    """Where there are several devices a weight without a gradient would leave the others waiting for it."""
    module = make(num_experts_per_tok=1)
    hidden = torch.randn(1, 32)
    module(hidden, runs_of([1])).sum().backward()
    chosen = int((hidden @ module.router.weight.T).argmax())
    for number, expert in enumerate(experts_of(module)):
        gradient = expert.up.weight.grad
        assert gradient is not None
        assert bool(gradient.any()) == (number == chosen)


def test_noise_is_of_a_learned_size_in_training_and_rests_in_evaluation() -> None:
    """Scores + normal · softplus(noise scores); with noise weights of zero the deviation is softplus(0) = ln 2."""
    module = make(noisy=True, num_experts_per_tok=1)
    assert module.noise is not None
    with torch.no_grad():
        module.noise.weight.zero_()
        hidden = torch.randn(4096, 32)
        with recording() as log:
            module.train()(hidden, runs_of([4096]))
            module.eval()(hidden, runs_of([4096]))
    noisy, plain = (each.logits for each in log.choices)
    torch.testing.assert_close(plain, hidden @ module.router.weight.T, rtol=0, atol=ROUNDING)
    assert (noisy - plain).std().item() == pytest.approx(0.6931, rel=0.02)  # of 16,384 draws
    assert (noisy - plain).mean().abs().item() < 0.03
    module.train()(hidden[:64], runs_of([64])).square().sum().backward()
    assert module.noise.weight.grad is not None
    assert bool(module.noise.weight.grad.any())


def test_the_router_computes_in_fp32_whatever_the_experts_do() -> None:
    """(Fedus et al. 2021, section 2.4: selective precision.) The choices in bf16 are those of fp32 scores of the same numbers."""
    module = make().to(torch.bfloat16).eval()
    hidden = torch.randn(16, 32, dtype=torch.bfloat16)
    with torch.no_grad(), recording() as log:
        out = module(hidden, runs_of([16]))
    assert out.dtype == torch.bfloat16
    assert log.choices[0].logits.dtype == torch.float32
    torch.testing.assert_close(log.choices[0].logits, hidden.float() @ module.router.weight.float().T)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), recording() as log:
        out = make().eval()(hidden.float(), runs_of([16]))
    assert (out.dtype, log.choices[0].logits.dtype) == (torch.float32, torch.float32)


def test_every_second_layer_has_experts() -> None:
    encoder = TransformerEncoder(tiny_config(**ROUTED_SHAPES["experts"]))
    assert [isinstance(encoder.layer(number).mlp, ExpertFeedForward) for number in range(4)] == [
        *(False, True),
        *(False, True),
    ]


def test_the_log_leaves_out_tokens_that_only_filled_up() -> None:
    module = make()
    with torch.no_grad(), recording() as log:
        log.real_tokens = 5
        module(torch.randn(9, 32), runs_of([5, 4]))
    assert [len(each.logits) for each in log.choices] == [9]
    assert [(len(each.logits), len(each.chosen)) for each in log.counted_choices()] == [(5, 5)]


def test_tokens_cost_what_their_experts_cost() -> None:
    """All tokens to all experts would be twice the rows of two of four: what is multiplied is counted, by hooks."""
    module = make()
    rows: list[int] = []
    for expert in experts_of(module):
        expert.up.register_forward_hook(lambda _module, inputs, _out: rows.append(len(inputs[0])))
    with torch.no_grad():
        module(torch.randn(40, 32), runs_of([40]))
    assert sum(rows) == 2 * 40
