"""Jina embeddings v2: BERT with ALiBi and gated feed-forward layers. Its hub folders call themselves BERT's and bring code along, which is never run."""

from __future__ import annotations

from typing import Any

from embedkit.checkpoint.families.fields import (
    SIZES,
    WRITTEN_ACTIVATIONS,
    read_fields,
    read_sizes,
    wanted,
)
from embedkit.checkpoint.families.row import FamilyRow, Json, Names, add, add_layers
from embedkit.checkpoint.json_files import json_field
from embedkit.errors import CheckpointError
from embedkit.model.config import Activation, EncoderConfig

_FEED_FORWARD: dict[str, Activation] = {"geglu": "gelu", "reglu": "relu"}
# The code of jina-embeddings-v2-base-code, whose layers have more norms, by the name of its repository; of others with norms of queries
# and keys, such as that of jina-embeddings-v2-base-es, it is not known what they compute.
_CODE_WITH_NORMS = "jina-bert-v2-qk-post-norm"
_OTHER_CODE = "-qk-"


def is_hub_jina_bert(content: Json) -> bool:
    """Say whether a config.json that calls itself a BERT's is of one with ALiBi."""
    return content.get("model_type") == "bert" and content.get("position_embedding_type") == "alibi"


def _read(content: Json, where: str) -> dict[str, Any]:
    code = content.get("auto_map")
    named = str(code.get("AutoModel")) if isinstance(code, dict) else ""
    with_norms = _CODE_WITH_NORMS in named
    if _OTHER_CODE in named and not with_norms:
        raise CheckpointError(
            f"{where}: the layers are those of {named}, whose norms of queries and keys are not known. Choose another model"
        )
    wanted(content, where, is_decoder=False, position_embedding_type="alibi")
    kind = json_field(content, "feed_forward_type", "original", where)
    if kind not in _FEED_FORWARD:
        raise CheckpointError(f"{where}: feed_forward_type is {kind!r}; known are {', '.join(_FEED_FORWARD)}")
    fields = read_sizes(content, where) | read_fields(
        content,
        where,
        type_vocab_size=2,
        pad_token_id=0,
        initializer_range=0.02,
        layer_norm_eps=1e-12,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        second_attention_norm=with_norms,
    )
    with_norms = fields["second_attention_norm"]
    return fields | {
        "qk_norm": with_norms,
        "qk_norm_over_heads": with_norms,
        "gate_second": with_norms,
        "hidden_act": _FEED_FORWARD[kind],
        "position": "alibi",
        "gated_mlp": True,
        "mlp_bias": False,
        "mlp_out_bias": True,
    }


def _write(config: EncoderConfig) -> dict[str, Any]:
    names = (
        *(*SIZES, "type_vocab_size", "pad_token_id", "initializer_range", "layer_norm_eps"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob"),
        *(["second_attention_norm"] if config.second_attention_norm else []),
    )
    kinds = {activation: kind for kind, activation in _FEED_FORWARD.items()}
    return {name: getattr(config, name) for name in names} | {
        "hidden_act": WRITTEN_ACTIVATIONS[config.hidden_act],
        "feed_forward_type": kinds.get(config.hidden_act, "geglu"),
        "position_embedding_type": "alibi",
    }


def _names(config: EncoderConfig) -> Names:
    names: Names = {"embeddings.tokens.weight": ("embeddings.word_embeddings.weight",)}
    if config.type_vocab_size:
        names["embeddings.token_types.weight"] = ("embeddings.token_type_embeddings.weight",)
    add(names, "embeddings.norm", ("embeddings.LayerNorm",), bias=config.norm_bias)
    layer = {
        "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.out": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
    }
    if config.second_attention_norm:
        layer |= {
            "attention.query_norm": ("attention.self.layer_norm_q",),
            "attention.key_norm": ("attention.self.layer_norm_k",),
            "second_attention_norm": ("layer_norm_1",),
            "mlp.up": ("mlp.up_gated_layer",),
            "mlp.down": ("mlp.down_layer",),
            "mlp_norm": ("layer_norm_2",),
        }
    else:
        layer |= {
            "mlp.up": ("mlp.gated_layers",),
            "mlp.down": ("mlp.wo",),
            "mlp_norm": ("mlp.layernorm",),
        }
    add_layers(names, config, "encoder.layer.{}.", layer)
    return names


JINA_BERT = FamilyRow(
    architecture="JinaBert",
    base_prefix="bert.",
    tokenizer_class="BertTokenizer",
    ignored=("pooler.", "cls."),
    read=_read,
    write=_write,
    names=_names,
    head={"dense": "bert.pooler.dense", "out": "classifier"},
    own_code=("JinaBert",),
)
