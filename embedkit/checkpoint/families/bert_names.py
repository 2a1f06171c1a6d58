"""The parameter names of BERT and its nearest relatives."""

from __future__ import annotations

from typing import Literal

from embedkit.checkpoint.families.row import Names, add
from embedkit.model.config import EncoderConfig

BertKind = Literal[
    "bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet", "albert", "electra", "modernbert"
]

# sublayer of ours -> sublayers of theirs, within one layer
_BERT_LAYER = {
    "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.out": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "mlp.up": ("intermediate.dense",),
    "mlp.down": ("output.dense",),
    "mlp_norm": ("output.LayerNorm",),
}
_LAYER: dict[BertKind, dict[str, tuple[str, ...]]] = {
    "bert": _BERT_LAYER,
    "roberta": _BERT_LAYER,
    "xlm-roberta": _BERT_LAYER,
    "camembert": _BERT_LAYER,
    "distilbert": {
        "attention.qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.out": ("attention.out_lin",),
        "attention_norm": ("sa_layer_norm",),
        "mlp.up": ("ffn.lin1",),
        "mlp.down": ("ffn.lin2",),
        "mlp_norm": ("output_layer_norm",),
    },
    "mpnet": _BERT_LAYER
    | {
        "attention.qkv": ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        "attention.out": ("attention.attn.o",),
        "attention_norm": ("attention.LayerNorm",),
    },
    "albert": {
        "attention.qkv": ("attention.query", "attention.key", "attention.value"),
        "attention.out": ("attention.dense",),
        "attention_norm": ("attention.LayerNorm",),
        "mlp.up": ("ffn",),
        "mlp.down": ("ffn_output",),
        "mlp_norm": ("full_layer_layer_norm",),
    },
    "electra": _BERT_LAYER,
    "modernbert": {
        "attention.qkv": ("attn.Wqkv",),
        "attention.out": ("attn.Wo",),
        "attention_norm": ("attn_norm",),
        "mlp.up": ("mlp.Wi",),
        "mlp.down": ("mlp.Wo",),
        "mlp_norm": ("mlp_norm",),
    },
}
_LAYER_PREFIX: dict[BertKind, str] = {
    "bert": "encoder.layer.{}.",
    "roberta": "encoder.layer.{}.",
    "xlm-roberta": "encoder.layer.{}.",
    "camembert": "encoder.layer.{}.",
    "distilbert": "transformer.layer.{}.",
    "mpnet": "encoder.layer.{}.",
    "albert": "encoder.albert_layer_groups.{}.albert_layers.0.",
    "electra": "encoder.layer.{}.",
    "modernbert": "layers.{}.",
}


def bert_names(family: BertKind, config: EncoderConfig) -> Names:
    """Map every parameter of a `TransformerEncoder` to the family's names, without the base prefix."""
    modern = family == "modernbert"
    names: Names = {
        "embeddings.tokens.weight": (
            "embeddings.tok_embeddings.weight" if modern else "embeddings.word_embeddings.weight",
        )
    }
    if config.has_position_table:
        names["embeddings.positions.weight"] = ("embeddings.position_embeddings.weight",)
    if config.type_vocab_size:
        names["embeddings.token_types.weight"] = ("embeddings.token_type_embeddings.weight",)
    norm = "embeddings.norm" if modern else "embeddings.LayerNorm"
    add(names, "embeddings.norm", (norm,), bias=config.norm_bias)
    if config.embedding_size is not None:
        theirs = "embeddings_project" if family == "electra" else "encoder.embedding_hidden_mapping_in"
        add(names, "embeddings.projection", (theirs,), bias=True)
    for number in range(config.num_distinct_layers):
        prefix = _LAYER_PREFIX[family].format(number)
        for ours, parts in _LAYER[family].items():
            if ours == "attention_norm" and config.norm_first and number == 0:
                continue
            bias = (
                config.norm_bias
                if "norm" in ours
                else config.mlp_bias
                if "mlp" in ours
                else config.attention_bias
            )
            add(names, f"layers.{number}.{ours}", tuple(prefix + name for name in parts), bias=bias)
    if config.norm_first:
        add(names, "final_norm", ("final_norm",), bias=config.norm_bias)
    if config.relative_attention_num_buckets:
        names["relative_bias.weight"] = ("encoder.relative_attention_bias.weight",)
    return names
