"""Parameter names: ours <-> those of each family's Hugging Face checkpoint.

A name of ours stands for one tensor of theirs, or for several that are stacked along the first axis (query, key and
value). Everything here is text; no tensor is touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from embedkit.model.config import EncoderConfig, HeadConfig, HeadLayer, LayerNormConfig
from embedkit.model.shapes import encoder_shapes

HubFamily = Literal[
    "bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet", "albert", "modernbert"
]
FAMILIES: tuple[HubFamily, ...] = get_args(HubFamily)
# Besides them, ours: shapes that none of these families can say. No other library knows it, so none computes such a model wrongly.
Family = Literal[HubFamily, "embedkit"]
Names = dict[str, tuple[str, ...]]  # ours -> theirs, to be stacked

# What stands before every name of the encoder once a head was saved with it.
BASE_PREFIX: dict[Family, str] = {
    "bert": "bert.",
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
    "camembert": "roberta.",
    "distilbert": "distilbert.",
    "mpnet": "mpnet.",
    "albert": "albert.",
    "modernbert": "model.",
    "embedkit": "encoder.",
}
# Weights of pretraining heads and buffers: an encoder does well without them. A `classifier` is not among them, since
# a folder that has one is a cross-encoder.
IGNORED_PREFIXES: dict[Family, tuple[str, ...]] = {
    "bert": ("pooler.", "cls."),
    "roberta": ("pooler.", "lm_head."),
    "xlm-roberta": ("pooler.", "lm_head."),
    "camembert": ("pooler.", "lm_head."),
    "distilbert": ("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
    "mpnet": ("pooler.", "lm_head."),
    "albert": ("pooler.", "predictions.", "sop_classifier."),
    "modernbert": ("head.", "decoder."),
    "embedkit": ("mlm.", "next_sentence."),
}
IGNORED_SUFFIXES = ("position_ids", "token_type_ids")  # buffers that older releases saved

# sublayer of ours -> sublayers of theirs, within one layer
_BERT_LAYER = {
    "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.out": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "mlp.up": ("intermediate.dense",),
    "mlp.down": ("output.dense",),
    "mlp_norm": ("output.LayerNorm",),
}
_LAYER: dict[HubFamily, dict[str, tuple[str, ...]]] = {
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
    "modernbert": {
        "attention.qkv": ("attn.Wqkv",),
        "attention.out": ("attn.Wo",),
        "attention_norm": ("attn_norm",),
        "mlp.up": ("mlp.Wi",),
        "mlp.down": ("mlp.Wo",),
        "mlp_norm": ("mlp_norm",),
    },
}
_LAYER_PREFIX: dict[HubFamily, str] = {
    "bert": "encoder.layer.{}.",
    "roberta": "encoder.layer.{}.",
    "xlm-roberta": "encoder.layer.{}.",
    "camembert": "encoder.layer.{}.",
    "distilbert": "transformer.layer.{}.",
    "mpnet": "encoder.layer.{}.",
    "albert": "encoder.albert_layer_groups.{}.albert_layers.0.",
    "modernbert": "layers.{}.",
}
# The masked-language-model head, outside of the base prefix.
_MLM: dict[Family, tuple[str, str, str, tuple[str, ...]]] = {  # dense, norm, bias, copies of tied weights
    "bert": (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
        ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"),
    ),
    "roberta": (
        "lm_head.dense",
        "lm_head.layer_norm",
        "lm_head.bias",
        ("lm_head.decoder.weight", "lm_head.decoder.bias"),
    ),
    "distilbert": (
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector.bias",
        ("vocab_projector.weight",),
    ),
    "albert": (
        "predictions.dense",
        "predictions.LayerNorm",
        "predictions.bias",
        ("predictions.decoder.weight", "predictions.decoder.bias"),
    ),
    "modernbert": ("head.dense", "head.norm", "decoder.bias", ("decoder.weight",)),
    "embedkit": ("mlm.dense", "mlm.norm", "mlm.bias", ()),
}
_MLM["xlm-roberta"] = _MLM["camembert"] = _MLM["mpnet"] = _MLM["roberta"]

# The next-sentence head's pooler and classifier, with the base prefix where they have one.
NEXT_SENTENCE: dict[Family, tuple[str, str]] = {
    "bert": ("bert.pooler.dense", "cls.seq_relationship"),
    "embedkit": ("next_sentence.pooler", "next_sentence.classifier"),
}

# The classification head: sublayer of ours -> of theirs, with the base prefix where it has one.
_HEADS: dict[Family, dict[str, str]] = {
    "bert": {"dense": "bert.pooler.dense", "out": "classifier"},
    "roberta": {"dense": "classifier.dense", "out": "classifier.out_proj"},
    "xlm-roberta": {"dense": "classifier.dense", "out": "classifier.out_proj"},
    "camembert": {"dense": "classifier.dense", "out": "classifier.out_proj"},
    "mpnet": {"dense": "classifier.dense", "out": "classifier.out_proj"},
    "distilbert": {"dense": "pre_classifier", "out": "classifier"},
    "albert": {"dense": "albert.pooler", "out": "classifier"},
    "modernbert": {"dense": "head.dense", "norm": "head.norm", "out": "classifier"},
    "embedkit": {"dense": "head.dense", "out": "head.out"},
}


def encoder_names(family: Family, config: EncoderConfig) -> Names:
    """Map every parameter of a `TransformerEncoder` to the family's names, without the base prefix."""
    if family == "embedkit":
        return own_names(encoder_shapes(config))
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
    _add(names, "embeddings.norm", (norm,), bias=config.norm_bias)
    if config.embedding_size is not None:
        _add(names, "embeddings.projection", ("encoder.embedding_hidden_mapping_in",), bias=True)
    for number in range(config.num_distinct_layers):
        prefix = _LAYER_PREFIX[family].format(number)
        for ours, theirs in _LAYER[family].items():
            if ours == "attention_norm" and config.norm_first and number == 0:
                continue
            bias = (
                config.norm_bias
                if "norm" in ours
                else config.mlp_bias
                if "mlp" in ours
                else config.attention_bias
            )
            _add(names, f"layers.{number}.{ours}", tuple(prefix + name for name in theirs), bias=bias)
    if config.norm_first:
        _add(names, "final_norm", ("final_norm",), bias=config.norm_bias)
    if config.relative_attention_num_buckets:
        names["relative_bias.weight"] = ("encoder.relative_attention_bias.weight",)
    return names


def own_names(names: Iterable[str]) -> Names:
    """Let parameters keep their names."""
    return {name: (name,) for name in names}


def dense_names(layer: HeadLayer) -> Names:
    """Map the parameters of a layer after pooling to sentence-transformers' names."""
    names: Names = {}
    if isinstance(layer, LayerNormConfig):
        _add(names, "0", ("norm",), bias=True)
    else:
        _add(names, "0", ("linear",), bias=layer.bias)
    return names


def head_names(family: Family, config: EncoderConfig, head: HeadConfig) -> Names:
    """Map every parameter of a `ClassificationHead` to the family's names, as they stand beside an encoder's."""
    biases = {"dense": head.bias, "norm": config.norm_bias, "out": True}
    names: Names = {}
    for ours, theirs in _HEADS[family].items():
        _add(names, ours, (theirs,), bias=biases[ours])
    return names


def stripped_names(names: Names, family: Family) -> Names:
    """Leave out the base prefix, which some heads' names begin with themselves."""
    prefix = BASE_PREFIX[family]
    return {ours: tuple(name.removeprefix(prefix) for name in theirs) for ours, theirs in names.items()}


def mlm_head_names(family: Family, config: EncoderConfig) -> Names:
    """Map every parameter of a `MaskedLMHead` to the family's names."""
    dense, norm, bias, _ = _MLM[family]
    names: Names = {"bias": (bias,)}
    _add(names, "dense", (dense,), bias=config.mlp_bias)
    _add(names, "norm", (norm,), bias=config.norm_bias)
    return names


def tied_names(family: Family) -> tuple[str, ...]:
    """Return the names under which copies of the token table and of the decoder's bias may be saved."""
    return _MLM[family][3]


def next_sentence_names(family: Family) -> Names:
    """Map every parameter of a `NextSentenceHead` to BERT's names, or our own.

    Raises:
        ValueError: the family has no such head.
    """
    if family not in NEXT_SENTENCE:
        raise ValueError(
            f"family {family!r} has no next-sentence head; only {' and '.join(NEXT_SENTENCE)} have"
        )
    pooler, classifier = NEXT_SENTENCE[family]
    names: Names = {}
    _add(names, "pooler", (pooler,), bias=True)
    _add(names, "classifier", (classifier,), bias=True)
    return names


def _add(names: Names, ours: str, theirs: tuple[str, ...], *, bias: bool) -> None:
    for kind in ("weight", "bias") if bias else ("weight",):
        names[f"{ours}.{kind}"] = tuple(f"{name}.{kind}" for name in theirs)
