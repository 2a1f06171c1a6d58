"""Qwen 2 and 3, Llama, Mistral, Gemma 3 and GPT-2: decoders whose token vectors make sentence vectors, most often that of the last token."""

from __future__ import annotations

from typing import Any

from embedkit.checkpoint.families.fields import (
    GPT2_SPELLING,
    WRITTEN_ACTIVATIONS,
    read_activation,
    read_sizes,
    wanted,
)
from embedkit.checkpoint.families.llama import llama_names, read_llama, write_llama
from embedkit.checkpoint.families.rope import read_rope, read_scaled_rope, written_rope, written_scaled_rope
from embedkit.checkpoint.families.row import FamilyRow, Json, Names, add, add_layers
from embedkit.checkpoint.json_files import json_field
from embedkit.errors import CheckpointError
from embedkit.model.config import EncoderConfig


def _read_decoder(content: Json, where: str, *, heads: int | None, head_size: int = 0) -> dict[str, Any]:
    """Return what Qwen, Llama and Mistral have in common; `is_causal` false lets tokens see both ways, as in transformers.

    `heads` is how many heads of keys and values there are where the config says nothing of them, None: as many as of queries; 0 for
    `head_size` is the share of each head.
    """
    sizes = read_sizes(content, where)
    hidden, all_heads = sizes["hidden_size"], sizes["num_attention_heads"]
    fields = read_llama(
        content,
        where,
        head_size=head_size or hidden // all_heads,
        key_value_heads=all_heads if heads is None or "num_key_value_heads" in content else heads,
    )
    head_size = fields["head_dim"]
    fields |= read_scaled_rope(content, where, default=10_000.0)
    return fields | {
        "hidden_act": read_activation(json_field(content, "hidden_act", "silu", where), where),
        "head_dim": None if head_size * all_heads == hidden else head_size,
        "causal": json_field(content, "is_causal", True, where),
    }


def _write_decoder(config: EncoderConfig) -> dict[str, Any]:
    both_ways = {} if config.causal else {"is_causal": False}
    return (
        write_llama(config)
        | both_ways
        | {
            "hidden_act": WRITTEN_ACTIVATIONS[config.hidden_act],
            "rope_parameters": written_scaled_rope(config),
            "tie_word_embeddings": True,
        }
    )


def _check_no_window(content: Json, where: str) -> None:
    wanted(content, where, use_sliding_window=False)
    layer_types = json_field(content, "layer_types", list[Any](), where)
    if any(kind != "full_attention" for kind in layer_types):
        raise CheckpointError(f"{where}: layer_types is {layer_types}; only full_attention is computed")


def _read_qwen3(content: Json, where: str) -> dict[str, Any]:
    _check_no_window(content, where)
    return _read_decoder(content, where, heads=32, head_size=128) | {"qk_norm": True}


def _write_qwen(config: EncoderConfig) -> dict[str, Any]:
    return _write_decoder(config) | {"use_sliding_window": False}


QWEN3 = FamilyRow(
    architecture="Qwen3",
    base_prefix="model.",
    tokenizer_class="Qwen2Tokenizer",
    ignored=("lm_head.",),
    read=_read_qwen3,
    write=_write_qwen,
    names=llama_names,
    head={"out": "score"},
)


def _read_qwen2(content: Json, where: str) -> dict[str, Any]:
    _check_no_window(content, where)
    code = content.get("auto_map")
    if isinstance(code, dict) and "AutoModel" in code and not isinstance(content.get("is_causal"), bool):
        raise CheckpointError(
            f"{where}: the folder brings code of its own along ({code['AutoModel']}), which is never run, and nothing says whether it "
            "lets tokens see both ways. Set is_causal to true or false"
        )
    return _read_decoder(content, where, heads=32) | {"attention_bias": True, "attention_out_bias": False}


QWEN2 = FamilyRow(
    architecture="Qwen2",
    base_prefix="model.",
    tokenizer_class="Qwen2Tokenizer",
    ignored=("lm_head.",),
    read=_read_qwen2,
    write=_write_qwen,
    names=llama_names,
    head={"out": "score"},
    own_code=("Qwen2",),
)


def _read_llama(content: Json, where: str) -> dict[str, Any]:
    return _read_decoder(content, where, heads=None) | {
        "mlp_bias": json_field(content, "mlp_bias", False, where),
    }


def _write_llama(config: EncoderConfig) -> dict[str, Any]:
    return _write_decoder(config) | {"mlp_bias": config.mlp_bias}


LLAMA = FamilyRow(
    architecture="Llama",
    base_prefix="model.",
    tokenizer_class="TokenizersBackend",
    ignored=("lm_head.",),
    read=_read_llama,
    write=_write_llama,
    names=llama_names,
    head={"out": "score"},
)


def _read_mistral(content: Json, where: str) -> dict[str, Any]:
    wanted(content, where, attention_bias=False, layer_types=[])
    fields = _read_decoder(content, where, heads=8)
    window = content.get("sliding_window", 4096)
    if window is not None and type(window) is not int:
        raise CheckpointError(f"{where}: sliding_window is {window!r}; it must be a whole number or null")
    scaling = fields.get("rope_scaling")
    if window is None or window >= max(
        fields["max_position_embeddings"], scaling.max_tokens if scaling else 0
    ):
        return fields
    if scaling is not None or fields.get("rope_factor", 1) != 1:
        raise CheckpointError(
            f"{where}: sliding_window is {window}, and rotary positions are scaled; one of the two is computed"
        )
    layers = fields["num_hidden_layers"]
    return fields | {
        # Tokens at a distance below the window, to the left alone, or up to it to each side.
        "local_attention": 2 * (window - 1 if fields["causal"] else window),
        "global_attn_every_n_layers": layers + 1,
        "global_attn_offset": layers,
        "local_rope_theta": fields["global_rope_theta"],
    }


def _write_mistral(config: EncoderConfig) -> dict[str, Any]:
    reach = config.local_attention // 2
    return _write_decoder(config) | {
        "sliding_window": (reach + config.causal) if config.local_attention else None,
    }


MISTRAL = FamilyRow(
    architecture="Mistral",
    base_prefix="model.",
    tokenizer_class="TokenizersBackend",
    ignored=("lm_head.",),
    read=_read_mistral,
    write=_write_mistral,
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
