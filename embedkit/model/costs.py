"""What an encoder costs: its parameters, those that a token meets, and the work of a forward pass. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

from embedkit.model.attention_costs import attention_flops
from embedkit.model.config import EncoderConfig
from embedkit.model.shapes import encoder_shapes


def num_parameters(config: EncoderConfig) -> int:
    """Count the parameters of an encoder, tables included."""
    return sum(prod(shape) for shape in encoder_shapes(config).values())


def num_active_parameters(config: EncoderConfig) -> int:
    """Count the parameters that take part in a token's vector: all but those of the experts that it does not choose."""
    idle = 0
    if config.experts is not None:
        idle = config.experts.num_experts - config.experts.num_experts_per_tok
    layers = [module for module in range(config.num_distinct_layers) if config.has_experts(module)]
    return num_parameters(config) - sum(
        idle * _size(config, f"layers.{module}.mlp.experts.0.") for module in layers
    )


def encoder_flops(
    config: EncoderConfig,
    lengths: Sequence[int],
    *,
    step_lengths: Sequence[Sequence[int]] | None = None,
    dropped: int = 0,
) -> float:
    """Count the multiplications and additions of a forward pass: products of weights and of attention.

    A layer counts as often as it is run, an expert for the tokens that choose it. `step_lengths` are the tokens that each recursion
    by a router took of each sequence; None: as many as expert choice takes, which are those of depths that are equally common.
    `dropped` are the choices of experts that were not computed.

    Shapes:
        lengths, and each of step_lengths: B numbers, the tokens of each sequence
    """
    recursion = config.recursion
    steps: Sequence[Sequence[int]] = ()
    if recursion is not None and recursion.routed:
        steps = step_lengths or [
            [recursion.num_selected(length, step) for length in lengths]
            for step in range(recursion.num_recursions)
        ]
    total = 0.0
    for layer in range(config.num_hidden_layers):
        step = recursion.step_of(layer) if recursion is not None and steps else None
        there = lengths if step is None else steps[step]
        tokens, pairs = sum(there), sum(length * length for length in there)
        total += 2 * _layer_weights(config, config.module_of(layer)) * tokens
        total += attention_flops(config, tokens, pairs)
    return total + _routing_flops(config, lengths, steps) - 2 * dropped * _expert_weights(config)


def _routing_flops(config: EncoderConfig, lengths: Sequence[int], steps: Sequence[Sequence[int]]) -> float:
    """Count those of a recursion's router: by token choice it scores all depths once, else each candidate before each recursion."""
    if config.recursion is None or not steps:
        return 0.0
    if config.recursion.routing == "token_choice":
        return 2.0 * config.hidden_size * config.recursion.num_depths * sum(lengths)
    return 2.0 * config.hidden_size * (sum(lengths) + sum(map(sum, steps[:-1])))


@cache
def _layer_weights(config: EncoderConfig, module: int) -> float:
    """Count the weights of a layer's products that one token meets, but for what `attention_flops` counts."""
    prefix = f"layers.{module}."
    apart = (f"{prefix}mlp.experts.", f"{prefix}attention.form.")
    shapes = encoder_shapes(config)
    found = sum(
        prod(shape)
        for name, shape in shapes.items()
        if len(shape) > 1 and name.startswith(prefix) and not name.startswith(apart)
    )
    if config.experts is not None and config.has_experts(module):
        found += config.experts.num_experts_per_tok * _expert_weights(config)
    return found


@cache
def _expert_weights(config: EncoderConfig) -> int:
    """Count the weights of one expert's products; 0 without experts."""
    if config.experts is None:
        return 0
    width = config.experts.intermediate_size or config.intermediate_size
    return config.hidden_size * width * (3 if config.gated_mlp else 2)


def _size(config: EncoderConfig, prefix: str) -> int:
    return sum(prod(shape) for name, shape in encoder_shapes(config).items() if name.startswith(prefix))
