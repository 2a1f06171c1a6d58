"""DeBERTa of the second and third release: BERT with disentangled attention."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from embedkit.checkpoint.families.fields import (
    SIZES,
    WRITTEN_ACTIVATIONS,
    read_activation,
    read_fields,
    read_sizes,
    wanted,
)
from embedkit.checkpoint.families.row import FamilyRow, Json, Names, add, add_layers
from embedkit.checkpoint.json_files import json_field
from embedkit.errors import CheckpointError
from embedkit.model.attention_config import DisentangledConfig
from embedkit.model.config import EncoderConfig

_PARTS = {"c2p": "content_to_position", "p2c": "position_to_content"}


def _read(content: Json, where: str) -> dict[str, Any]:
    fields = read_sizes(content, where)
    hidden, heads = fields["hidden_size"], fields["num_attention_heads"]
    wanted(
        content, where, embedding_size=hidden, attention_head_size=hidden // heads, pooler_hidden_size=hidden
    )
    biased = json_field(content, "position_biased_input", True, where)
    fields |= read_fields(
        content,
        where,
        type_vocab_size=0,
        pad_token_id=0,
        initializer_range=0.02,
        layer_norm_eps=1e-7,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )
    return fields | {
        "hidden_act": read_activation(json_field(content, "hidden_act", "gelu", where), where),
        "position": "learned" if biased else "none",
        "disentangled": _read_disentangled(content, fields["max_position_embeddings"], where),
    }


def _read_disentangled(content: Json, positions: int, where: str) -> DisentangledConfig | None:
    kernel = json_field(content, "conv_kernel_size", 0, where)
    if not json_field(content, "relative_attention", False, where):
        if kernel:
            raise CheckpointError(
                f"{where}: conv_kernel_size is {kernel} without relative_attention; only with it is a convolution computed"
            )
        return None
    named = content.get("pos_att_type") or []
    parts = named.split("|") if isinstance(named, str) else named
    parts = [str(part).strip().lower() for part in parts]
    if unknown := [part for part in parts if part not in _PARTS]:
        raise CheckpointError(f"{where}: pos_att_type has {unknown[0]!r}; known are {', '.join(_PARTS)}")
    if not parts:
        raise CheckpointError(
            f"{where}: pos_att_type is {named!r} with relative_attention; it must name c2p, p2c or both"
        )
    farthest = json_field(content, "max_relative_positions", -1, where)
    norms = json_field(content, "norm_rel_ebd", "none", where).lower()
    return DisentangledConfig(
        position_buckets=max(0, json_field(content, "position_buckets", -1, where)),
        max_relative_positions=farthest if farthest > 0 else positions,
        share_att_key=json_field(content, "share_att_key", False, where),
        norm_rel_ebd="layer_norm" in [part.strip() for part in norms.split("|")],
        conv_kernel_size=kernel,
        conv_groups=json_field(content, "conv_groups", 1, where),
        conv_act=json_field(content, "conv_act", "tanh", where),
        **{name: part in parts for part, name in _PARTS.items()},
    )


def _write(config: EncoderConfig) -> dict[str, Any]:
    names = (
        *("type_vocab_size", "pad_token_id", "initializer_range", "layer_norm_eps"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob"),
    )
    content = {name: getattr(config, name) for name in (*SIZES, *names)}
    content |= {
        "hidden_act": WRITTEN_ACTIVATIONS[config.hidden_act],
        "position_biased_input": config.position == "learned",
        "relative_attention": config.disentangled is not None,
        "pooler_hidden_act": "gelu",
        "pooler_hidden_size": config.hidden_size,
    }
    own = config.disentangled
    if own is not None:
        said = asdict(own)
        content |= {
            name: said[name] for name in ("max_relative_positions", "share_att_key", "conv_kernel_size")
        }
        content |= {
            "position_buckets": own.position_buckets or -1,
            "norm_rel_ebd": "layer_norm" if own.norm_rel_ebd else "none",
            "pos_att_type": [part for part, name in _PARTS.items() if said[name]],
        }
        if own.conv_kernel_size:
            content |= {"conv_groups": own.conv_groups, "conv_act": own.conv_act}
    return content


def _names(config: EncoderConfig) -> Names:
    names: Names = {"embeddings.tokens.weight": ("embeddings.word_embeddings.weight",)}
    if config.has_position_table:
        names["embeddings.positions.weight"] = ("embeddings.position_embeddings.weight",)
    if config.type_vocab_size:
        names["embeddings.token_types.weight"] = ("embeddings.token_type_embeddings.weight",)
    add(names, "embeddings.norm", ("embeddings.LayerNorm",), bias=True)
    own = "attention.self."
    layer = {
        "attention.qkv": (f"{own}query_proj", f"{own}key_proj", f"{own}value_proj"),
        "attention.out": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
        "mlp.up": ("intermediate.dense",),
        "mlp.down": ("output.dense",),
        "mlp_norm": ("output.LayerNorm",),
    }
    if config.disentangled is not None and not config.disentangled.share_att_key:
        layer["attention.position_qk"] = (f"{own}pos_query_proj", f"{own}pos_key_proj")
    add_layers(names, config, "encoder.layer.{}.", layer)
    if config.disentangled is not None:
        names["distances.vectors.weight"] = ("encoder.rel_embeddings.weight",)
        if config.disentangled.norm_rel_ebd:
            add(names, "distances.norm", ("encoder.LayerNorm",), bias=True)
        if config.disentangled.conv_kernel_size:
            add(names, "convolution.conv", ("encoder.conv.conv",), bias=True)
            add(names, "convolution.norm", ("encoder.conv.LayerNorm",), bias=True)
    return names


DEBERTA = FamilyRow(
    architecture="DebertaV2",
    base_prefix="deberta.",
    tokenizer_class="DebertaV2Tokenizer",
    # Older checkpoints hold a table of positions that a model without positions at its input has no use for.
    ignored=("pooler.", "cls.", "lm_predictions.", "mask_predictions.", "embeddings.position_embeddings."),
    read=_read,
    write=_write,
    names=_names,
    head={"dense": "pooler.dense", "out": "classifier"},
)
