"""NomicBERT and GTE: encoders with rotary positions and gated feed-forward layers.

On the Hugging Face hub both bring code along, which is never run: their config says all that is needed.
"""

from __future__ import annotations

from typing import Any

from embedkit.checkpoint.families.fields import (
    GPT2_SPELLING,
    SIZES,
    WRITTEN_ACTIVATIONS,
    read_activation,
    read_fields,
    read_sizes,
    wanted,
)
from embedkit.checkpoint.families.rope import read_rope, written_rope
from embedkit.checkpoint.families.row import FamilyRow, Json, Names, add, add_layers
from embedkit.checkpoint.json_files import json_field
from embedkit.model.config import EncoderConfig
from embedkit.model.routing_config import ExpertsConfig

_NOMIC_OFF = (
    *("rotary_emb_interleaved", "prenorm", "parallel_block", "use_rms_norm", "causal"),
    "scale_attn_by_inverse_layer_idx",
)
_NOMIC_GATES = {"swiglu": "silu", "geglu": "gelu"}


def _read_nomic(content: Json, where: str) -> dict[str, Any]:
    old = "n_embd" in content
    fields = read_sizes(content, where, GPT2_SPELLING if old else None)
    head_size = fields["hidden_size"] // fields["num_attention_heads"]
    if has_nomic_experts(content):
        return _read_nomic_experts(content, fields, where)
    wanted(content, where, head_dim=head_size, num_experts=0, moe_every_n_layers=0)
    if old:
        off = dict.fromkeys(("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias", *_NOMIC_OFF), False)
        if not content.get("moe_every_n_layers"):
            content = {key: value for key, value in content.items() if key != "num_experts"}
        wanted(content, where, rotary_emb_fraction=1.0, scale_attn_weights=True, **off)
        wanted(content, where, rotary_scaling_factor=1.0, rotary_emb_scale_base=0)
        wanted(content, where, activation_function=_known_gate(content))
        theta, factor = json_field(content, "rotary_emb_base", 10_000.0, where), 1.0
        activation = _NOMIC_GATES[_known_gate(content)]
        dropout = json_field(content, "resid_pdrop", 0.0, where)
        attention_dropout = json_field(content, "attn_pdrop", 0.0, where)
        eps = json_field(content, "layer_norm_epsilon", 1e-12, where)
    else:
        theta, factor = read_rope(content, where, default=1000.0, head_size=head_size)
        activation = json_field(content, "hidden_act", "silu", where)
        dropout = json_field(content, "hidden_dropout_prob", 0.0, where)
        attention_dropout = json_field(content, "attention_probs_dropout_prob", 0.0, where)
        eps = json_field(content, "layer_norm_eps", 1e-12, where)
    fields |= read_fields(content, where, type_vocab_size=2, pad_token_id=0, initializer_range=0.02)
    return fields | {
        "hidden_act": read_activation(activation, where),
        "layer_norm_eps": eps,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": attention_dropout,
        "position": "rope",
        "global_rope_theta": theta,
        "rope_factor": factor,
        "gated_mlp": True,
        "attention_bias": False,
        "mlp_bias": False,
    }


def has_nomic_experts(content: Json) -> bool:
    """Say whether a config.json is of a NomicBERT with a mixture of experts, as nomic-embed-text-v2-moe is; transformers knows of none."""
    return (
        content.get("model_type") == "nomic_bert"
        and "n_embd" in content
        and bool(content.get("moe_every_n_layers"))
    )


def _read_nomic_experts(content: Json, fields: dict[str, Any], where: str) -> dict[str, Any]:
    off = dict.fromkeys((*_NOMIC_OFF, "expert_choice_router", "num_shared_experts"), False)
    wanted(content, where, moe_every_n_layers=2, ffn_div=1, activation_function="gelu", **off)
    wanted(content, where, qkv_proj_bias=True, mlp_fc1_bias=True, mlp_fc2_bias=True)
    wanted(content, where, rotary_emb_fraction=1.0, scale_attn_weights=True)
    wanted(content, where, rotary_scaling_factor=1.0, rotary_emb_scale_base=0)
    experts = ExpertsConfig(
        num_experts=json_field(content, "num_experts", 0, where),
        num_experts_per_tok=json_field(content, "moe_top_k", 1, where),
        norm_topk_prob=json_field(content, "moe_normalize_expert_weights", False, where),
        shared_bias=True,
    )
    return fields | {
        "type_vocab_size": json_field(content, "type_vocab_size", 0, where),
        "pad_token_id": json_field(content, "pad_token_id", 0, where),
        "initializer_range": json_field(content, "initializer_range", 0.02, where),
        "layer_norm_eps": json_field(content, "layer_norm_epsilon", 1e-12, where),
        "hidden_dropout_prob": json_field(content, "resid_pdrop", 0.0, where),
        "attention_probs_dropout_prob": json_field(content, "attn_pdrop", 0.0, where),
        "position": "rope",
        "global_rope_theta": json_field(content, "rotary_emb_base", 10_000.0, where),
        "experts": experts,
    }


def _known_gate(content: Json) -> str:
    """Return the activation where it is a known one, else what is wanted."""
    given = content.get("activation_function")
    return given if given in _NOMIC_GATES else "swiglu"


def _common(config: EncoderConfig) -> dict[str, Any]:
    content = {name: getattr(config, name) for name in SIZES}
    return content | {
        "hidden_act": WRITTEN_ACTIVATIONS[config.hidden_act],
        "initializer_range": config.initializer_range,
        "pad_token_id": config.pad_token_id,
        "rope_parameters": written_rope(config.global_rope_theta, config.rope_factor),
    }


def _write_bert_like(config: EncoderConfig) -> dict[str, Any]:
    names = ("type_vocab_size", "layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob")
    return _common(config) | {name: getattr(config, name) for name in names}


def _embeddings(config: EncoderConfig, norm: str) -> Names:
    names: Names = {"embeddings.tokens.weight": ("embeddings.word_embeddings.weight",)}
    if config.type_vocab_size:
        names["embeddings.token_types.weight"] = ("embeddings.token_type_embeddings.weight",)
    add(names, "embeddings.norm", (norm,), bias=config.norm_bias)
    return names


def _nomic_names(config: EncoderConfig) -> Names:
    names = _embeddings(config, "emb_ln")
    layer = {
        "attention.qkv": ("attn.Wqkv",),
        "attention.out": ("attn.out_proj",),
        "attention_norm": ("norm1",),
        "mlp.up": ("mlp.fc12", "mlp.fc11"),  # the gate first
        "mlp.down": ("mlp.fc2",),
        "mlp_norm": ("norm2",),
    }
    add_layers(names, config, "encoder.layers.{}.", layer)
    return names


NOMIC = FamilyRow(
    architecture="NomicBert",
    base_prefix="nomic_bert.",
    tokenizer_class="BertTokenizer",
    ignored=("pooler.", "cls."),
    read=_read_nomic,
    write=_write_bert_like,
    names=_nomic_names,
    head={"dense": "nomic_bert.pooler.dense", "out": "classifier"},
    own_code=("NomicBert",),
)


def _read_gte(content: Json, where: str) -> dict[str, Any]:
    fields = read_sizes(content, where)
    wanted(content, where, position_embedding_type="rope", layer_norm_type="layer_norm", pack_qkv=True)
    wanted(content, where, logn_attention_scale=False)
    theta, factor = read_rope(
        content,
        where,
        # What the code that such folders bring along assumes, and what transformers does.
        default=10_000.0 if content.get("model_type") == "new" else 160_000.0,
        head_size=fields["hidden_size"] // fields["num_attention_heads"],
    )
    fields |= read_fields(
        content,
        where,
        type_vocab_size=1,
        pad_token_id=1,
        initializer_range=0.02,
        layer_norm_eps=1e-12,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0,
    )
    return fields | {
        "hidden_act": read_activation(json_field(content, "hidden_act", "gelu", where), where),
        "position": "rope",
        "global_rope_theta": theta,
        "rope_factor": factor,
        "gated_mlp": True,
        "gate_second": True,
        "mlp_bias": False,
        "mlp_out_bias": True,
    }


def _gte_names(config: EncoderConfig) -> Names:
    names = _embeddings(config, "embeddings.LayerNorm")
    layer = {
        "attention.qkv": ("attention.qkv_proj",),
        "attention.out": ("attention.o_proj",),
        "attention_norm": ("attn_ln",),
        "mlp.up": ("mlp.up_gate_proj",),
        "mlp.down": ("mlp.down_proj",),
        "mlp_norm": ("mlp_ln",),
    }
    add_layers(names, config, "encoder.layer.{}.", layer)
    return names


GTE = FamilyRow(
    architecture="Gte",
    base_prefix="gte.",
    tokenizer_class="XLMRobertaTokenizer",
    ignored=("pooler.", "lm_head."),
    read=_read_gte,
    write=_write_bert_like,
    names=_gte_names,
    head={"dense": "gte.pooler.dense", "out": "classifier"},
    other_prefixes=("new.",),
    also=("new",),
    own_code=("New", "Gte"),
)
