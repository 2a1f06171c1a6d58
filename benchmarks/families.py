"""Tokens per second of an encoder of each family, all of one size with random weights, and what computes them here.

python -m benchmarks.families --hidden 384 --layers 6 --seconds 2
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from embedkit.checkpoint.names import FAMILIES
from embedkit.inference.choice import choose_runtime
from embedkit.model.config import EncoderConfig
from embedkit.model.costs import num_parameters
from embedkit.model.encoder import TransformerEncoder
from tests.tiny import FAMILY_SHAPES, tiny_config

LENGTHS = [128] * 8 + [32] * 16 + [512]  # 2,048 tokens: what is computed at a time


def shape(family: str, *, hidden: int, layers: int) -> EncoderConfig:
    """Return a family's pieces at another size; heads of 64, half as many for keys where a family has fewer."""
    tiny = tiny_config(**FAMILY_SHAPES[family])
    heads = hidden // 64
    fewer = tiny.num_key_value_heads is not None
    return replace(
        tiny,
        vocab_size=30_000,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_hidden_groups=None if tiny.num_hidden_groups is None else 1,
        num_attention_heads=heads,
        head_dim=None,
        num_key_value_heads=heads // 2 if fewer else None,
        intermediate_size=hidden * (2 if tiny.gated_mlp else 4),
        max_position_embeddings=max(1024, tiny.max_position_embeddings),
        local_attention=128 if tiny.local_attention else 0,
    )


def tokens_per_second(config: EncoderConfig, seconds: float) -> float:
    torch.manual_seed(0)
    encoder = TransformerEncoder(config).eval()
    ids = torch.randint(5, 30_000, (sum(LENGTHS),))
    with torch.inference_mode():
        encoder.forward_packed(ids, LENGTHS)
        done, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds or not done:
            encoder.forward_packed(ids, LENGTHS)
            done += len(ids)
    return done / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, fp32")
    for family in FAMILIES:
        config = shape(family, hidden=given.hidden, layers=given.layers)
        speed = tokens_per_second(config, given.seconds)
        runtime = choose_runtime(config, "fp32", "cpu").runtime
        print(
            f"{family:12} {num_parameters(config) / 1e6:6.1f} M  {speed:8,.0f} tokens/s in torch; auto: {runtime}"
        )


if __name__ == "__main__":
    main()
