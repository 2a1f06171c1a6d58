"""Tiny random text generators for tests, built by our own code from nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from embedkit.checkpoint.generation import StoredAs
from embedkit.checkpoint.generation_weights import save_generator
from embedkit.checkpoint.names import Family
from embedkit.model.decoder_config import DecoderConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.text_generator import TextGenerator
from tests.tiny import tiny_config, tiny_tokenizer

# What a decoder may be made of; the first is ours, the others as in BART, as in Vaswani et al., and as in T5.
DECODERS: dict[str, dict[str, Any]] = {  # Any: fields of a DecoderConfig, here and below
    "norm first": {"norm_first": True, "share_embeddings": True, "output_bias": True},
    "norm after": {"norm_first": False, "embedding_norm": True, "tie_word_embeddings": False},
    "sinusoidal": {"norm_first": False, "position": "sinusoidal", "hidden_act": "relu"},
    "narrow": {"hidden_size": 16, "num_attention_heads": 2},
    "distances": {
        "position": "none",
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 10,
        "norm": "rms",
        "attention_bias": False,
        "mlp_bias": False,
        "gated_mlp": True,
        "head_dim": 12,
        "query_pre_attn_scalar": 4.0,
        "scale_output": True,
        "share_embeddings": True,
    },
}


def decoder_config(**fields: Any) -> DecoderConfig:
    """The shape of a decoder with two layers of 32 over the tiny encoder; `fields` change it."""
    shape: dict[str, Any] = {
        "vocab_size": tiny_tokenizer().vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "initializer_range": 0.3,  # large, so that no two tokens are nearly as likely
        "encoder_size": 32,
    }
    return DecoderConfig(**(shape | fields))


def tiny_generator(*, seed: int = 0, **fields: Any) -> TextGenerator:
    """A random encoder–decoder; with `encoder_size=None` a language model."""
    torch.manual_seed(seed)
    config = decoder_config(**fields)
    encoder = None if config.encoder_size is None else TransformerEncoder(tiny_config())
    model = TextGenerator(encoder, config)
    with torch.no_grad():  # fresh biases are 0, which would hide a mix-up
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def write_tiny_generator(
    folder: Path, *, stored: StoredAs = "fp32", generation: Mapping[str, Any] | None = None, **fields: Any
) -> Path:
    """Write a random tiny generator's folder; the same seed gives the same weights."""
    model = tiny_generator(**fields)
    family: Family | None = None if model.encoder is None else "bert"
    own = {"max_new_tokens": 10} if generation is None else generation
    save_generator(folder, model, tiny_tokenizer(), family=family, generation=own, stored=stored)
    return folder
