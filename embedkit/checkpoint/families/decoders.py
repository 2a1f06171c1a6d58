"""Qwen 3, Gemma 3 and GPT-2: decoders whose token vectors make sentence vectors, most often that of the last token."""

from __future__ import annotations

from typing import Any

from embedkit.checkpoint.families.fields import (
    GPT2_SPELLING,
    WRITTEN_ACTIVATIONS,
    read_activation,
    read_rope,
    read_sizes,
    wanted,
    written_rope,
)
from embedkit.checkpoint.families.llama import llama_names, read_llama, write_llama
from embedkit.checkpoint.families.row import FamilyRow, Json, Names, add, add_layers
from embedkit.checkpoint.json_files import json_field
from embedkit.errors import CheckpointError
from embedkit.model.config import EncoderConfig


def _read_qwen3(content: Json, where: str) -> dict[str, Any]:
    wanted(content, where, use_sliding_window=False, is_causal=True)
    layer_types = json_field(content, "layer_types", list[Any](), where)
    if any(kind != "full_attention" for kind in layer_types):
        raise CheckpointError(f"{where}: layer_types is {layer_types}; only full_attention is computed")
    fields = read_llama(content, where, head_size=128, key_value_heads=32)
    theta, factor = read_rope(content, where, default=10_000.0, head_size=fields["head_dim"])
    return fields | {
        "hidden_act": read_activation(json_field(content, "hidden_act", "silu", where), where),
        "qk_norm": True,
        "global_rope_theta": theta,
        "rope_factor": factor,
        "causal": True,
    }


def _write_qwen3(config: EncoderConfig) -> dict[str, Any]:
    return write_llama(config) | {
        "hidden_act": WRITTEN_ACTIVATIONS[config.hidden_act],
        "rope_parameters": written_rope(config.global_rope_theta, config.rope_factor),
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    }


QWEN3 = FamilyRow(
    architecture="Qwen3",
    base_prefix="model.",
    tokenizer_class="Qwen2Tokenizer",
    ignored=("lm_head.",),
    read=_read_qwen3,
    write=_write_qwen3,
    names=llama_names,
    head={"out": "score"},
)


def _read_gemma3(content: Json, where: str) -> dict[str, Any]:
    if content.get("attn_logit_softcapping") is not None:
        raise CheckpointError(
            f"{where}: attn_logit_softcapping is {content['attn_logit_softcapping']!r}; capped scores are not computed"
        )
    fields = read_llama(content, where, head_size=256, key_value_heads=4)
    both_ways = json_field(content, "use_bidirectional_attention", False, where)
    window = json_field(content, "sliding_window", 4096, where)
    every, offset = _global_layers(content, fields["num_hidden_layers"], where)
    far, factor = read_rope(content, where, default=1e6, head_size=fields["head_dim"], kind="full_attention")
    near, local_factor = read_rope(
        content,
        where,
        default=10_000.0,
        head_size=fields["head_dim"],
        kind="sliding_attention",
        old_key="rope_local_base_freq",
    )
    if local_factor != 1:
        raise CheckpointError(
            f"{where}: rotary positions of sliding layers are scaled; only others' are computed so"
        )
    activation = json_field(content, "hidden_activation", "gelu_pytorch_tanh", where)
    return fields | {
        "hidden_act": read_activation(activation, where),
        "norm": "rms_offset",
        "qk_norm": True,
        "post_norm": True,
        "scale_embeddings": True,
        "query_pre_attn_scalar": float(json_field(content, "query_pre_attn_scalar", 256.0, where)),
        "causal": not both_ways,
        # Tokens at a distance below the window, to the left alone or half of it to each side.
        "local_attention": window // 2 * 2 if both_ways else 2 * (window - 1),
        "global_attn_every_n_layers": every,
        "global_attn_offset": offset,
        "global_rope_theta": far,
        "local_rope_theta": near,
        "rope_factor": factor,
    }


def _global_layers(content: Json, layers: int, where: str) -> tuple[int, int]:
    """Find n and o such that the layers i with i mod n = o attend globally."""
    pattern = json_field(
        content, "sliding_window_pattern", json_field(content, "_sliding_window_pattern", 6, where), where
    )
    usual = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(layers)]
    types = json_field(content, "layer_types", list[Any](), where) or usual
    if "full_attention" not in types:
        return layers + 1, layers
    for every in range(1, layers + 1):
        offset = types.index("full_attention") % every
        if all((kind == "full_attention") == (i % every == offset) for i, kind in enumerate(types)):
            return every, offset
    raise CheckpointError(
        f"{where}: layer_types is {types}; only global attention in every n-th layer is computed"
    )


def _write_gemma3(config: EncoderConfig) -> dict[str, Any]:
    reach = config.local_attention // 2
    types = [
        "sliding_attention" if config.layer_is_local(layer) else "full_attention"
        for layer in range(config.num_hidden_layers)
    ]
    return write_llama(config) | {
        "hidden_activation": {"gelu_tanh": "gelu_pytorch_tanh"}.get(
            config.hidden_act, WRITTEN_ACTIVATIONS[config.hidden_act]
        ),
        "query_pre_attn_scalar": int(config.query_pre_attn_scalar or config.head_size),
        "use_bidirectional_attention": not config.causal,
        "sliding_window": reach + 1 if config.causal else 2 * reach,
        "layer_types": types,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "rope_parameters": {
            "full_attention": written_rope(config.global_rope_theta, config.rope_factor),
            "sliding_attention": written_rope(config.local_rope_theta, 1.0),
        },
        "tie_word_embeddings": True,
    }


GEMMA3 = FamilyRow(
    architecture="Gemma3Text",
    base_prefix="model.",
    tokenizer_class="GemmaTokenizer",
    ignored=("lm_head.",),
    read=_read_gemma3,
    write=_write_gemma3,
    names=llama_names,
    head={"out": "score"},
)


def _read_gpt2(content: Json, where: str) -> dict[str, Any]:
    wanted(content, where, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
    wanted(content, where, add_cross_attention=False)
    given = dict(content)
    if given.get("n_inner") is None and type(given.get("n_embd")) is int:
        given["n_inner"] = 4 * given["n_embd"]
    fields = read_sizes(given, where, GPT2_SPELLING)
    activation = json_field(content, "activation_function", "gelu_new", where)
    return fields | {
        "hidden_act": read_activation(activation, where),
        "type_vocab_size": 0,
        "pad_token_id": json_field(content, "pad_token_id", 0, where),
        "initializer_range": json_field(content, "initializer_range", 0.02, where),
        "layer_norm_eps": json_field(content, "layer_norm_epsilon", 1e-5, where),
        "hidden_dropout_prob": json_field(content, "resid_pdrop", 0.1, where),
        "attention_probs_dropout_prob": json_field(content, "attn_pdrop", 0.1, where),
        "norm_first": True,
        "embedding_norm": False,
        "causal": True,
    }


def _write_gpt2(config: EncoderConfig) -> dict[str, Any]:
    content = {theirs: getattr(config, ours) for ours, theirs in GPT2_SPELLING.items()}
    return content | {
        "vocab_size": config.vocab_size,
        "activation_function": WRITTEN_ACTIVATIONS[config.hidden_act],
        "pad_token_id": config.pad_token_id,
        "initializer_range": config.initializer_range,
        "layer_norm_epsilon": config.layer_norm_eps,
        "resid_pdrop": config.hidden_dropout_prob,
        "embd_pdrop": config.hidden_dropout_prob,
        "attn_pdrop": config.attention_probs_dropout_prob,
    }


def _gpt2_names(config: EncoderConfig) -> Names:
    names: Names = {
        "embeddings.tokens.weight": ("wte.weight",),
        "embeddings.positions.weight": ("wpe.weight",),
    }
    layer = {
        "attention.qkv": ("attn.c_attn",),
        "attention.out": ("attn.c_proj",),
        "attention_norm": ("ln_1",),
        "mlp.up": ("mlp.c_fc",),
        "mlp.down": ("mlp.c_proj",),
        "mlp_norm": ("ln_2",),
    }
    add_layers(names, config, "h.{}.", layer)
    add(names, "final_norm", ("ln_f",), bias=True)
    return names


GPT2 = FamilyRow(
    architecture="GPT2",
    base_prefix="transformer.",
    tokenizer_class="GPT2Tokenizer",
    ignored=("lm_head.",),
    read=_read_gpt2,
    write=_write_gpt2,
    names=_gpt2_names,
    head={"out": "score"},
    transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight"),
)
