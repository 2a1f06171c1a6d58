"""Parameter names: ours <-> those of each family's Hugging Face checkpoint.

A name of ours stands for one tensor of theirs, or for several that are stacked along the first axis (query, key and
value). Everything here is text; no tensor is touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast, get_args

from embedkit.checkpoint.families.bert_names import BertKind, bert_names
from embedkit.checkpoint.families.row import Names, add
from embedkit.checkpoint.families.table import ALSO, ROWS, NewerFamily
from embedkit.model.config import EncoderConfig, HeadConfig, HeadLayer, LayerNormConfig
from embedkit.model.shapes import encoder_shapes

HubFamily = Literal[BertKind, NewerFamily]
FAMILIES: tuple[HubFamily, ...] = get_args(HubFamily)
# Besides them, ours: shapes that none of these families can say. No other library knows it, so none computes such a model wrongly.
Family = Literal[HubFamily, "embedkit"]

# What stands before every name of the encoder once a head was saved with it.
BASE_PREFIX: dict[Family, str] = {
    "bert": "bert.",
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
    "camembert": "roberta.",
    "distilbert": "distilbert.",
    "mpnet": "mpnet.",
    "albert": "albert.",
    "electra": "electra.",
    "modernbert": "model.",
    **{family: row.base_prefix for family, row in ROWS.items()},
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
    "electra": ("discriminator_predictions.", "generator_predictions.", "generator_lm_head."),
    "modernbert": ("head.", "decoder."),
    **{family: row.ignored for family, row in ROWS.items()},
    "embedkit": ("mlm.", "next_sentence."),
}
IGNORED_SUFFIXES = ("position_ids", "token_type_ids")  # buffers that older releases saved

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
    "electra": (
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        "generator_lm_head.bias",
        ("generator_lm_head.weight",),
    ),
    "modernbert": ("head.dense", "head.norm", "decoder.bias", ("decoder.weight",)),
    "gte": ("lm_head.dense", "lm_head.norm", "lm_head.decoder.bias", ("lm_head.decoder.weight",)),
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
    "electra": {"dense": "classifier.dense", "out": "classifier.out_proj"},
    "modernbert": {"dense": "head.dense", "norm": "head.norm", "out": "classifier"},
    **{family: dict(row.head) for family, row in ROWS.items() if row.head},
    "embedkit": {"dense": "head.dense", "out": "head.out"},
}


def encoder_names(family: Family, config: EncoderConfig) -> Names:
    """Map every parameter of a `TransformerEncoder` to the family's names, without the base prefix."""
    if family == "embedkit":
        return own_names(encoder_shapes(config))
    if family in ROWS:
        return ROWS[family].names(config)
    return bert_names(cast("BertKind", family), config)


def family_named(model_type: object) -> HubFamily | None:
    """Return the family that a config's model_type means; None: one that we do not know."""
    found = ALSO.get(str(model_type), model_type)
    return next((family for family in FAMILIES if family == found), None)


def transposed(family: Family) -> tuple[str, ...]:
    """Return how the names of matrices end that a family stores with rows and columns exchanged."""
    row = ROWS.get(cast("NewerFamily", family))
    return () if row is None else row.transposed


def base_prefixes(family: Family) -> tuple[str, ...]:
    """Return what may stand before every name of a family's encoder."""
    row = ROWS.get(cast("NewerFamily", family))
    return (BASE_PREFIX[family], *(() if row is None else row.other_prefixes))


def own_names(names: Iterable[str]) -> Names:
    """Let parameters keep their names."""
    return {name: (name,) for name in names}


def dense_names(layer: HeadLayer) -> Names:
    """Map the parameters of a layer after pooling to sentence-transformers' names."""
    names: Names = {}
    if isinstance(layer, LayerNormConfig):
        add(names, "0", ("norm",), bias=True)
    else:
        add(names, "0", ("linear",), bias=layer.bias)
        if layer.projects_residual:
            add(names, "residual", ("residual",), bias=False)
    return names


def head_names(family: Family, config: EncoderConfig, head: HeadConfig) -> Names:
    """Map every parameter of a `ClassificationHead` to the family's names, as they stand beside an encoder's."""
    biases = {"dense": head.bias, "norm": config.norm_bias, "out": head.out_bias}
    names: Names = {}
    for ours, theirs in _HEADS[family].items():
        add(names, ours, (theirs,), bias=biases[ours])
    return names


def stripped_names(names: Names, family: Family) -> Names:
    """Leave out the base prefix, which some heads' names begin with themselves."""
    prefix = BASE_PREFIX[family]
    return {ours: tuple(name.removeprefix(prefix) for name in theirs) for ours, theirs in names.items()}


def mlm_head_names(family: Family, config: EncoderConfig) -> Names:
    """Map every parameter of a `MaskedLMHead` to the family's names."""
    dense, norm, bias, _ = _MLM[family]
    names: Names = {"bias": (bias,)}
    add(names, "dense", (dense,), bias=config.down_bias)
    add(names, "norm", (norm,), bias=config.norm_bias)
    return names


def has_mlm_head(family: Family) -> bool:
    """Say whether we know how the family names a masked-language-model head."""
    return family in _MLM


def has_head(family: Family) -> bool:
    """Say whether we know how the family names a classification head."""
    return family in _HEADS


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
    add(names, "pooler", (pooler,), bias=True)
    add(names, "classifier", (classifier,), bias=True)
    return names
