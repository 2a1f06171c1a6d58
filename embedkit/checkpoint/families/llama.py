"""What LLaMA's descendants share, and EuroBERT, the encoder among them; the decoders are in decoders.py."""

from __future__ import annotations

from typing import Any

from embedkit.checkpoint.families.fields import (
    SIZES,
    WRITTEN_ACTIVATIONS,
    read_activation,
    read_fields,
    read_sizes,
)
from embedkit.checkpoint.families.rope import read_scaled_rope, written_scaled_rope
from embedkit.checkpoint.families.row import FamilyRow, Json, Names, add_layers
from embedkit.checkpoint.json_files import json_field
from embedkit.model.config import EncoderConfig


def read_llama(
    content: Json,
    where: str,
    *,
    head_size: int,
    key_value_heads: int,
    eps: float = 1e-6,
    pad_token_id: int = 0,
) -> dict[str, Any]:
    """Return the fields of an `EncoderConfig` that all of them have; the arguments are what is left out means.

    Raises:
        CheckpointError: a size is missing, or a field is of another kind.
    """
    fields = read_sizes(content, where) | read_fields(
        content,
        where,
        pad_token_id=pad_token_id,
        initializer_range=0.02,
        head_dim=head_size,
        num_key_value_heads=key_value_heads,
        attention_bias=False,
    )
    return fields | {
        "type_vocab_size": 0,
        "layer_norm_eps": json_field(content, "rms_norm_eps", eps, where),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": json_field(content, "attention_dropout", 0.0, where),
        "position": "rope",
        "gated_mlp": True,
        "norm_first": True,
        "norm": "rms",
        "embedding_norm": False,
        "mlp_bias": False,
    }


def write_llama(config: EncoderConfig) -> dict[str, Any]:
    """Return what of a config.json all of them have."""
    content = {name: getattr(config, name) for name in SIZES}
    return content | {
        "pad_token_id": config.pad_token_id,
        "initializer_range": config.initializer_range,
        "rms_norm_eps": config.layer_norm_eps,
        "attention_dropout": config.attention_probs_dropout_prob,
        "attention_bias": config.attention_bias,
        "head_dim": config.head_size,
        "num_key_value_heads": config.key_value_heads,
    }


def llama_names(config: EncoderConfig) -> Names:
    """Map the parameters as LLaMA and its many descendants name them."""
    names: Names = {"embeddings.tokens.weight": ("embed_tokens.weight",)}
    layer = {
        "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention.out": ("self_attn.o_proj",),
        "attention_norm": ("input_layernorm",),
        "mlp.up": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down": ("mlp.down_proj",),
        "mlp_norm": ("post_attention_layernorm",),
    }
    if config.qk_norm:
        layer |= {"attention.query_norm": ("self_attn.q_norm",), "attention.key_norm": ("self_attn.k_norm",)}
    if config.post_norm:  # Gemma's: the same name for the norm behind attention, where others have the one before the feed-forward
        layer |= {
            "attention_post_norm": ("post_attention_layernorm",),
            "mlp_norm": ("pre_feedforward_layernorm",),
            "mlp_post_norm": ("post_feedforward_layernorm",),
        }
    add_layers(names, config, "layers.{}.", layer)
    names["final_norm.weight"] = ("norm.weight",)
    return names


def _read_eurobert(content: Json, where: str) -> dict[str, Any]:
    sizes = read_sizes(content, where)
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    fields = read_llama(
        content, where, head_size=hidden // heads, key_value_heads=heads, eps=1e-5, pad_token_id=128001
    )
    head_size = fields["head_dim"]
    fields |= read_scaled_rope(content, where, default=10_000.0)
    return fields | {
        "hidden_act": read_activation(json_field(content, "hidden_act", "silu", where), where),
        "head_dim": None if head_size * heads == hidden else head_size,
        "mlp_bias": json_field(content, "mlp_bias", False, where),
    }


def _write_eurobert(config: EncoderConfig) -> dict[str, Any]:
    return write_llama(config) | {
        "hidden_act": WRITTEN_ACTIVATIONS[config.hidden_act],
        "rope_parameters": written_scaled_rope(config),
        "mlp_bias": config.mlp_bias,
    }


EUROBERT = FamilyRow(
    architecture="EuroBert",
    base_prefix="model.",
    tokenizer_class="TokenizersBackend",
    ignored=("lm_head.",),
    read=_read_eurobert,
    write=_write_eurobert,
    names=llama_names,
    head={"dense": "dense", "out": "classifier"},
    own_code=("EuroBert",),
)
