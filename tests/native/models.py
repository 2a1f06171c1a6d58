"""Tiny random encoders, run by torch as the oracle and natively."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embedkit.model.attention_config import DisentangledConfig
from embedkit.model.config import EncoderConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.rope_config import RopeScalingConfig
from embedkit.model.routing_config import RecursionConfig
from embedkit.native.encoder import why_not
from embedkit.native.library import NativePrecision

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
PRECISIONS: tuple[NativePrecision, ...] = ("fp32", "bf16", "int8")

BERT = EncoderConfig(
    vocab_size=101,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=128,
    max_position_embeddings=256,
    initializer_range=0.2,  # ten times the usual: attention that is far from uniform
)
# A window of 24 and the next token: texts of the tests are shorter, as long, and many times longer. Layers 0 and 3 are global.
MODERN = replace(
    BERT,
    type_vocab_size=0,
    num_hidden_layers=4,
    intermediate_size=96,
    initializer_range=0.12,
    layer_norm_eps=1e-5,
    position="rope",
    norm_first=True,
    gated_mlp=True,
    norm_bias=False,
    attention_bias=False,
    mlp_bias=False,
    local_attention=24,
    global_attn_every_n_layers=3,
)
LLAMA = replace(
    BERT,
    type_vocab_size=0,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    initializer_range=0.12,
    layer_norm_eps=1e-6,
    position="rope",
    norm="rms",
    norm_first=True,
    embedding_norm=False,
    gated_mlp=True,
    hidden_act="silu",
    attention_bias=False,
    mlp_bias=False,
)
FAMILIES = {
    "bert": BERT,
    "roberta": replace(BERT, position_offset=2, type_vocab_size=1, layer_norm_eps=1e-5),
    "distilbert": replace(BERT, type_vocab_size=0),
    "sinusoidal, gelu_tanh": replace(BERT, position="sinusoidal", hidden_act="gelu_tanh"),
    "relu": replace(BERT, hidden_act="relu"),
    "mpnet": replace(
        BERT,
        position_offset=2,
        type_vocab_size=0,
        layer_norm_eps=1e-5,
        relative_attention_num_buckets=32,
        max_position_embeddings=514,
    ),
    "mpnet, hidden 48, heads of 16": replace(
        BERT,
        hidden_size=48,
        num_attention_heads=3,
        intermediate_size=72,
        relative_attention_num_buckets=8,
    ),
    "albert": replace(
        BERT, embedding_size=16, num_hidden_layers=4, num_hidden_groups=2, hidden_act="gelu_tanh"
    ),
    "embeddings wider than the layers": replace(BERT, embedding_size=144, num_hidden_groups=1),
    "recursion": replace(
        BERT, num_hidden_layers=3, recursion=RecursionConfig(routing="fixed", num_recursions=2)
    ),
    "modernbert": MODERN,
    # ends in a local layer, in which the first token alone has a narrower window than its block
    "modernbert, heads of 64": replace(
        MODERN,
        hidden_size=192,
        num_attention_heads=3,
        num_hidden_layers=2,
        local_attention=128,
        intermediate_size=200,
        initializer_range=0.05,
    ),
    "nomic": replace(
        BERT,
        position="rope",
        global_rope_theta=1000.0,
        gated_mlp=True,
        hidden_act="silu",
        attention_bias=False,
        mlp_bias=False,
    ),
    "gte": replace(
        BERT,
        position="rope",
        gated_mlp=True,
        gate_second=True,
        mlp_bias=False,
        mlp_out_bias=True,
        rope_factor=1.5,
    ),
    "jina v2": replace(
        BERT,
        hidden_size=48,
        num_attention_heads=3,
        intermediate_size=72,
        position="alibi",
        gated_mlp=True,
        mlp_bias=False,
        mlp_out_bias=True,
    ),
    "eurobert": LLAMA,
    "qwen2": replace(LLAMA, causal=True, attention_bias=True, attention_out_bias=False),
    "qwen3": replace(LLAMA, causal=True, qk_norm=True, head_dim=64),
    "qwen3, heads of 128, four to a key": replace(
        LLAMA, causal=True, qk_norm=True, head_dim=128, num_key_value_heads=1, initializer_range=0.08
    ),
    "mistral": replace(LLAMA, causal=True, local_attention=24, num_key_value_heads=1),
    "gemma3": replace(
        LLAMA,
        hidden_size=48,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=32,
        hidden_act="gelu_tanh",
        norm="rms_offset",
        post_norm=True,
        qk_norm=True,
        scale_embeddings=True,
        query_pre_attn_scalar=48.0,
        local_attention=24,
        global_attn_every_n_layers=2,
        global_attn_offset=1,
    ),
    "t5": replace(
        LLAMA,
        position="none",
        relative_attention_num_buckets=32,
        query_pre_attn_scalar=1.0,
        head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=None,
        gated_mlp=False,
        hidden_act="relu",
        initializer_range=0.1,
    ),
    "t5, distances up to 40": replace(
        BERT, position="none", relative_attention_num_buckets=16, relative_attention_max_distance=40
    ),
    "llama 3": replace(
        LLAMA,
        causal=True,
        rope_scaling=RopeScalingConfig(kind="llama3", factor=4.0, original_max_position_embeddings=64),
    ),
    "yarn": replace(
        LLAMA,
        rope_scaling=RopeScalingConfig(
            kind="yarn", factor=2.0, original_max_position_embeddings=128, attention_factor=1.1
        ),
    ),
    "deberta": replace(
        BERT,
        type_vocab_size=0,
        position="none",
        initializer_range=0.12,
        disentangled=DisentangledConfig(position_buckets=16, max_relative_positions=64),
    ),
    "deberta, positions of their own, no buckets, heads of 48": replace(
        BERT,
        hidden_size=96,
        position="none",
        initializer_range=0.1,
        disentangled=DisentangledConfig(
            position_buckets=0,
            max_relative_positions=20,
            share_att_key=False,
            norm_rel_ebd=False,
            content_to_position=False,
        ),
    ),
    "deberta, contents to positions alone": replace(
        BERT, position="none", disentangled=DisentangledConfig(position_buckets=32, position_to_content=False)
    ),
    "gpt2": replace(
        BERT, type_vocab_size=0, norm_first=True, embedding_norm=False, causal=True, hidden_act="gelu_tanh"
    ),
    "causal, norms after, heads of 16": replace(
        BERT, causal=True, num_attention_heads=4, num_key_value_heads=2
    ),
    "jina v2 for code": replace(
        BERT,
        hidden_size=96,
        num_attention_heads=3,
        intermediate_size=72,
        position="alibi",
        gated_mlp=True,
        gate_second=True,
        mlp_bias=False,
        mlp_out_bias=True,
        qk_norm=True,
        qk_norm_over_heads=True,
        second_attention_norm=True,
    ),
    "layer norms of queries and keys": replace(BERT, qk_norm=True),
    "norms first, silu, learned positions": replace(BERT, norm_first=True, hidden_act="silu"),
    "hidden 96, heads of 48": replace(BERT, hidden_size=96, intermediate_size=200),
    "hidden 48, heads of 16": replace(BERT, hidden_size=48, num_attention_heads=3, intermediate_size=72),
    "hidden 128, heads of 64": replace(BERT, hidden_size=128, intermediate_size=512),
    "hidden 384, heads of 32": replace(
        BERT, hidden_size=384, num_attention_heads=12, intermediate_size=1536, initializer_range=0.05
    ),
}


def skip_unless_native(precision: NativePrecision) -> None:
    if reason := why_not(BERT, precision):
        pytest.skip(f"native {precision} does not run here: {reason}")


def random_model(config: EncoderConfig, seed: int = 0) -> tuple[TransformerEncoder, dict[str, Float32]]:
    """An encoder with random weights, norms and biases too, and the weights as arrays."""
    torch.manual_seed(seed)
    encoder = TransformerEncoder(config).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder, {name: weight.numpy() for name, weight in encoder.state_dict().items()}


def random_tokens(config: EncoderConfig, lengths: Sequence[int], seed: int = 0) -> tuple[Int64, Int64]:
    ids = np.random.default_rng(seed).integers(0, config.vocab_size, sum(lengths))
    return ids, np.array(lengths, np.int64)


def reference(encoder: TransformerEncoder, ids: Int64, lengths: Int64, types: Int64 | None = None) -> Float32:
    with torch.inference_mode():
        type_ids = None if types is None else torch.from_numpy(types)
        hidden: Float32 = encoder.forward_packed(torch.from_numpy(ids), lengths.tolist(), type_ids).numpy()
        return hidden


def cosines(a: Float32, b: Float32) -> NDArray[np.float64]:
    """(N,) of the rows of two (N, D)."""
    first, second = a.astype(np.float64), b.astype(np.float64)
    sizes = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    found: NDArray[np.float64] = (first * second).sum(1) / sizes
    return found
