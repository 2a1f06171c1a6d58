"""Jina embeddings v3: XLM-RoBERTa with rotary positions, as transformers names it and as its hub folder does, which brings code along."""

from __future__ import annotations

from typing import Any

from embedkit.checkpoint.families.fields import (
    SIZES,
    WRITTEN_ACTIVATIONS,
    read_activation,
    read_fields,
    read_sizes,
    wanted,
)
from embedkit.checkpoint.families.rope import read_scaled_rope, written_scaled_rope
from embedkit.checkpoint.families.row import FamilyRow, Json, Names, add, add_layers
from embedkit.checkpoint.json_files import json_field
from embedkit.model.config import EncoderConfig

_THETA = 20_000.0  # where transformers' config says nothing
_HUB_THETA = 10_000.0  # where that of the hub folder says nothing


def is_hub_jina(content: Json) -> bool:
    """Say whether a config.json that calls itself an XLM-RoBERTa's is of one with rotary positions."""
    return _is_xlm_roberta(content) and content.get("position_embedding_type") == "rotary"


def is_plain_flash(content: Json) -> bool:
    """Say whether Jina's code computes a plain XLM-RoBERTa, as that of jina-reranker-v2 does: all that it changes is the weights' names."""
    return _is_flash(content) and content.get("position_embedding_type") == "absolute"


def _is_xlm_roberta(content: Json) -> bool:
    kind = content.get("model_type")
    return kind == "xlm-roberta" or (kind is None and _is_flash(content))


def _is_flash(content: Json) -> bool:
    """Say whether a folder names Jina's code for XLM-RoBERTa; the config of jina-reranker-v2 has no model_type besides."""
    code = content.get("auto_map")
    named = code.get("AutoConfig") if isinstance(code, dict) else None
    return str(named).rpartition(".")[2] == "XLMRobertaFlashConfig" and content.get("model_type") in (
        None,
        "xlm-roberta",
    )


def _read_jina(content: Json, where: str) -> dict[str, Any]:
    fields = read_sizes(content, where)
    wanted(content, where, is_decoder=False, emb_pooler="", truncate_dim=0)
    if is_hub_jina(content):
        theta = json_field(content, "rotary_emb_base", _HUB_THETA, where)
        rope: dict[str, Any] = {"global_rope_theta": theta}
    else:
        rope = read_scaled_rope(content, where, default=_THETA)
    fields |= read_fields(
        content,
        where,
        type_vocab_size=1,
        pad_token_id=1,
        initializer_range=0.02,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )
    activation = read_activation(json_field(content, "hidden_act", "gelu", where), where)
    return fields | rope | {"hidden_act": activation, "position": "rope"}


def _write_jina(config: EncoderConfig) -> dict[str, Any]:
    names = (
        *(*SIZES, "type_vocab_size", "pad_token_id", "initializer_range", "layer_norm_eps"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob"),
    )
    return {name: getattr(config, name) for name in names} | {
        "hidden_act": WRITTEN_ACTIVATIONS[config.hidden_act],
        "rope_parameters": written_scaled_rope(config),
    }


def _jina_names(config: EncoderConfig) -> Names:
    names: Names = {"embeddings.tokens.weight": ("embeddings.word_embeddings.weight",)}
    if config.type_vocab_size:
        names["embeddings.token_types.weight"] = ("embeddings.token_type_embeddings.weight",)
    add(names, "embeddings.norm", ("emb_ln",), bias=config.norm_bias)
    layer = {
        "attention.qkv": ("mixer.Wqkv",),
        "attention.out": ("mixer.out_proj",),
        "attention_norm": ("norm1",),
        "mlp.up": ("mlp.fc1",),
        "mlp.down": ("mlp.fc2",),
        "mlp_norm": ("norm2",),
    }
    add_layers(names, config, "encoder.layers.{}.", layer)
    return names


JINA = FamilyRow(
    architecture="JinaEmbeddingsV3",
    base_prefix="roberta.",
    tokenizer_class="XLMRobertaTokenizer",
    ignored=("pooler.", "lm_head."),
    read=_read_jina,
    write=_write_jina,
    names=_jina_names,
    head={"dense": "classifier.dense", "out": "classifier.out_proj"},
    own_code=("XLMRobertaLoRA", "XLMRobertaModel"),
)
