"""Parameters and work of an encoder, counted from its shape and by watching its products."""

from __future__ import annotations

import re

import pytest
import torch

from embedkit.model.costs import encoder_flops, num_active_parameters, num_parameters
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.routing_config import ExpertsConfig, RecursionConfig
from tests.tiny import FAMILY_SHAPES, JINA_CODE_SHAPE, ROUTED_SHAPES, VARIANT_SHAPES, tiny_config

SHAPES = FAMILY_SHAPES | VARIANT_SHAPES | ROUTED_SHAPES | {"jina v2 for code": JINA_CODE_SHAPE}


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_are_those_of_the_module(shape: str) -> None:
    config = tiny_config(**SHAPES[shape])
    model = TransformerEncoder(config)
    assert num_parameters(config) == sum(parameter.numel() for parameter in model.parameters())
    idle = 0
    for name, parameter in model.named_parameters():
        number = re.search(r"mlp\.experts\.(\d+)\.", name)
        assert (number is None) or (config.experts is not None)
        if number is not None and config.experts is not None:
            idle += parameter.numel() if int(number[1]) >= config.experts.num_experts_per_tok else 0
    assert num_parameters(config) - num_active_parameters(config) == idle


def test_a_plain_encoder_by_hand() -> None:
    """A layer of 32: 4 · 32² weights of attention and 2 · 32 · 64 behind it, 8,192; two of them, for 3 and 5 tokens, and 4 · 32 · T² each."""
    config = tiny_config()
    assert encoder_flops(config, [3, 5]) == 2 * (2 * 8192 * 8 + 4 * 32 * (9 + 25))


def test_shared_layers_cost_as_often_as_they_are_run() -> None:
    lengths = [7, 2]
    plain = encoder_flops(tiny_config(num_hidden_layers=4), lengths)
    albert = encoder_flops(tiny_config(num_hidden_layers=4, num_hidden_groups=1), lengths)
    fixed = tiny_config(
        num_hidden_layers=4,
        recursion=RecursionConfig(routing="fixed", num_recursions=4, num_first_layers=0),
    )
    assert plain == albert == encoder_flops(fixed, lengths)


def test_a_recursion_by_a_router_costs_its_tokens_alone() -> None:
    """Of 9 tokens 9, 6 and 3 take a recursion: 18 passes of a token through a layer, and 81 + 36 + 9 pairs in its attention."""
    config = tiny_config(num_hidden_layers=5, recursion=RecursionConfig())
    outside = 2 * (2 * 8192 * 9 + 4 * 32 * 81)
    inside = 2 * 8192 * 18 + 4 * 32 * (81 + 36 + 9)
    router = 2 * 32 * (9 + 9 + 6)
    assert encoder_flops(config, [9]) == outside + inside + router
    fewer = config.with_recursions(1)
    assert encoder_flops(fewer, [9]) == 3 * (2 * 8192 * 9 + 4 * 32 * 81) + 2 * 32 * 9


def test_experts_cost_what_a_token_chooses() -> None:
    """Half as wide, two of them cost what a plain layer does; the router comes on top, and what is dropped is not computed."""
    lengths = [6]
    config = tiny_config(experts=ExpertsConfig(num_experts=4, intermediate_size=32))
    plain = encoder_flops(tiny_config(), lengths)
    assert encoder_flops(config, lengths) == plain + 2 * 4 * 32 * 6
    assert encoder_flops(config, lengths) - encoder_flops(config, lengths, dropped=3) == 2 * 3 * 2 * 32 * 32
    many = tiny_config(experts=ExpertsConfig(num_experts=64, intermediate_size=32))
    assert encoder_flops(many, lengths) - encoder_flops(config, lengths) == 2 * 60 * 32 * 6


def test_the_products_of_a_model_are_those_that_are_counted() -> None:
    """Watched at every linear layer of the widest kind there is: gated, with a shared expert."""
    config = tiny_config(
        gated_mlp=True, experts=ExpertsConfig(num_experts=4, every_n_layers=1, shared_intermediate_size=8)
    )
    model, found = TransformerEncoder(config).eval(), []
    for module in model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda linear, inputs, _out: found.append(2.0 * linear.weight.numel() * len(inputs[0]))
            )
    with torch.no_grad():
        model.forward_packed(torch.arange(1, 9), [5, 3])
    routers = 2 * 2 * 4 * 32 * 8  # which are multiplied by hand, in fp32
    attention = 2 * 4 * 32 * (25 + 9)
    assert encoder_flops(config, [5, 3]) == sum(found) + routers + attention
