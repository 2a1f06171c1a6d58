"""What routers did, counted and reported, and the losses of a step, checked against the encoder's own log."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from embedkit.errors import RecipeError, TrainingError
from embedkit.model.costs import encoder_flops
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.routing import RoutingLog, recording
from embedkit.model.routing_config import ExpertsConfig
from embedkit.recipe import load_recipe
from embedkit.tokenization.kinds import TOKEN_KINDS
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.recipes import PretrainRecipe, RoutingRecipe
from embedkit.training.engine.routing_losses import StepRouting, check_routing
from embedkit.training.engine.routing_tally import Tally, entropy
from embedkit.training.pretraining.corpus import Corpus
from tests.tiny import ROUTED_SHAPES, tiny_config
from tests.training.corpora import ROUTED, make_journey, make_recipe

CPU = torch.device("cpu")
EXPERTS = tiny_config(experts=ExpertsConfig(num_experts=4, capacity_factor=1.0))


def chosen(*experts: int) -> RoutingLog:
    """A log of one layer, of tokens that chose so."""
    log = RoutingLog()
    kept = torch.ones(len(experts), 1, dtype=torch.bool)
    kept[-1] = False
    log.choose("layer 1", torch.zeros(len(experts), 4), torch.tensor(experts)[:, None], kept)
    return log


def test_entropy_and_use_of_experts_by_hand() -> None:
    """Half the choices for one expert, a quarter each for two: ½ ln 2 + 2 · ¼ ln 4 = 1.5 ln 2; 3 of 4 experts; 2 of 8 dropped."""
    tally = Tally(EXPERTS, CPU)
    tally.add(chosen(0, 0, 1, 2))
    tally.add(chosen(0, 0, 1, 2))
    measures = tally.measures()
    assert measures["router_entropy"] == pytest.approx(1.5 * math.log(2))
    assert (measures["experts_used"], measures["dropped"]) == (3, 0.25)
    assert tally.load("layer 1").tolist() == [4, 2, 2, 0]
    assert entropy(torch.ones(8)) == pytest.approx(math.log(8))
    assert entropy(torch.tensor([5.0, 0.0])) == 0


def test_depths_are_counted_by_kind_of_token() -> None:
    """Words of depths 1 and 3, a special token of depth 2."""
    config = tiny_config(**ROUTED_SHAPES["expert choice"])
    kinds = np.full(10, TOKEN_KINDS.index("word"))
    kinds[7] = TOKEN_KINDS.index("special")
    tally = Tally(config, CPU, kinds=kinds)
    log = RoutingLog(depths=torch.tensor([1, 3, 2, 9]), real_tokens=3)
    tally.add(log, torch.tensor([1, 2, 7]))
    assert tally.measures() == {"depth": 2.0, "depth_special": 2.0, "depth_word": 2.0}


def test_a_model_that_routes_nothing_has_nothing_to_report() -> None:
    for config in (None, tiny_config()):
        tally = Tally(config, CPU)
        with tally.watching(np.arange(3)):
            pass
        routing = StepRouting(config, RoutingRecipe(), alone(precision="fp32"))
        with routing.watching():
            pass
        routing.settle()
        assert routing.share() is None
        assert (tally.measures(), routing.values()) == ({}, {})


def test_the_work_of_a_step_is_that_of_its_routes() -> None:
    """By token choice the router decides how many tokens each recursion computes; dropped choices are not computed."""
    torch.manual_seed(0)
    for name in ("token choice", "expert choice", "experts, one of few tokens", "experts in a recursion"):
        encoder = TransformerEncoder(tiny_config(**ROUTED_SHAPES[name])).train()
        ids, lengths = torch.randint(1, 200, (50,)), [30, 20]
        routing = StepRouting(encoder.config, RoutingRecipe(), alone(precision="fp32"))
        multiplied = counted_products(encoder)
        with routing.watching():
            encoder.forward_packed(ids, lengths)
        recursion = encoder.config.recursion
        attention = 0.0
        for layer in range(encoder.config.num_hidden_layers):
            step = None if recursion is None else recursion.step_of(layer)
            there = lengths if step is None else routing._step_lengths[step]
            attention += 4 * encoder.config.hidden_size * sum(length**2 for length in there)
        assert routing.flops(lengths) == pytest.approx(attention + sum(multiplied)), name


def counted_products(encoder: TransformerEncoder) -> list[float]:
    """Watch all linear layers: each notes the multiplications and additions that it makes. A router multiplies by itself."""
    found: list[float] = []
    for module in encoder.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda linear, inputs, _out: found.append(2.0 * linear.weight.numel() * len(inputs[0]))
            )
    with recording() as log:
        pass
    assert log.choices == []
    for name, router in encoder.named_modules():
        if name.endswith("mlp"):
            router.register_forward_hook(
                lambda mlp, inputs, _out: (
                    found.append(2.0 * mlp.router.weight.numel() * len(inputs[0]))
                    if hasattr(mlp, "router")
                    else None
                )
            )
    recursion = encoder.recursion
    if recursion is not None:
        score = recursion.score

        def counted(hidden: torch.Tensor, step: int | None = None) -> torch.Tensor:
            out = score(hidden, step)
            found.append(2.0 * out.numel() * hidden.shape[1])
            return out

        recursion.score = counted  # type: ignore[method-assign] # of this one router
    return found


def test_weights_of_losses_for_a_model_without_routers_are_refused() -> None:
    check_routing(tiny_config(), None)
    check_routing(EXPERTS, RoutingRecipe(balance_weight=1.0))
    for config in (None, tiny_config()):
        with pytest.raises(TrainingError, match="the model has no experts and no recursion by a router"):
            check_routing(config, RoutingRecipe(balance_weight=1.0))


def test_a_recipe_that_makes_no_sense_is_refused_with_its_key() -> None:
    for setting, message in (
        (
            "model.experts.num_experts_per_tok=9",
            "model.experts: num_experts_per_tok is 9; there are 8 experts",
        ),
        ("model.experts.capacity_factor=0", "model.experts: capacity_factor is 0; it must be above 0"),
        ("model.recursion.num_recursions=0", "model.recursion: num_recursions is 0; it must be at least 1"),
        (
            "model.recursion.num_recursions=9",
            "model: recursion.num_recursions is 9: 1 layers and 9 × 1 are 10",
        ),
        ("routing.balance_weight=-1", "routing: balance_weight is -1.0; it must be at least 0"),
        ("model.experts.nub_experts=3", "unknown key model.experts.nub_experts; did you mean"),
        ("model.recursion.routing=free", "model.recursion.routing is 'free'; it must be one of fixed,"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(PretrainRecipe, overrides=("run.steps=1", setting))


@pytest.mark.parametrize("routed", ROUTED)
def test_the_parts_of_a_step_give_the_gradient_of_the_whole_batch(
    corpus: Corpus, tokenizer: Tokenizer, routed: str
) -> None:
    """And with dropout on it is the pass with gradients that decides, not the one that only counts."""
    gradients, values = [], []
    for accumulate in (1, 4):
        recipe = make_recipe(*ROUTED[routed], "model.dropout=0.0", f"run.accumulate={accumulate}")
        journey = make_journey(corpus, tokenizer, recipe, parts=accumulate)
        journey.module.train()
        shares = journey.backward(journey.module, 0, alone(precision="fp32"))
        values.append({name: float(value) for name, value in shares.values.items()})
        gradients.append(
            {name: p.grad for name, p in journey.module.named_parameters() if p.grad is not None}
        )
        lengths = journey.batch(0).lengths
        assert shares.tokens == lengths.sum()
        if routed == "expert choice":
            encoder = journey.module.encoder
            head = 2.0 * 32 * (32 + tokenizer.vocab_size) * float(journey.batch(0).chosen.sum())
            once = encoder_flops(encoder.config, lengths.tolist()) + head
            assert shares.flops == pytest.approx((3 if accumulate == 1 else 4) * once)
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-3, msg=name)


def test_a_pass_that_counts_first_leaves_the_random_numbers_as_they_were(
    corpus: Corpus, tokenizer: Tokenizer
) -> None:
    """Dropout and noise are on: with weights of zero the gradient is that of a step that does not count."""
    off = ("routing.balance_weight=0", "routing.z_weight=0")
    recipe = make_recipe(*ROUTED["experts"], "model.experts.noisy=true", "run.accumulate=2", *off)
    journey = make_journey(corpus, tokenizer, recipe, parts=2)
    journey.module.train()
    whole = journey.batch(0)
    torch.manual_seed(3)
    journey.backward(journey.module, 0, alone(precision="fp32"))
    found = {name: p.grad for name, p in journey.module.named_parameters()}
    journey.module.zero_grad()
    torch.manual_seed(3)
    for number in range(2):
        part = whole.part(number, 2)
        torch.autograd.backward(
            journey._forward(journey.module, part, whole, alone(precision="fp32"))["loss"]
        )
    for name, parameter in journey.module.named_parameters():
        gradient = found[name]
        if gradient is None:
            continue
        assert parameter.grad is not None, name
        torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-7, msg=name)
