"""`config.json` of BERT and its nearest relatives, both ways."""

from __future__ import annotations

from typing import Any

from embedkit.checkpoint.families.bert_names import BertKind
from embedkit.checkpoint.families.fields import SIZES, WRITTEN_ACTIVATIONS, read_activation, read_sizes
from embedkit.checkpoint.families.row import Json
from embedkit.checkpoint.json_files import json_field
from embedkit.errors import CheckpointError
from embedkit.model.config import EncoderConfig

# our field -> DistilBERT's and ModernBERT's own spelling; the other families share ours
_SPELLING: dict[str, dict[str, str]] = {
    "distilbert": {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    },
    "modernbert": {
        "hidden_act": "hidden_activation",
        "hidden_dropout_prob": "mlp_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "layer_norm_eps": "norm_eps",
    },
}
# What transformers assumes where a config leaves a field out; the rest must be there.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "hidden_act": {"albert": "gelu_new", "": "gelu"},
    "layer_norm_eps": {"modernbert": 1e-5, "": 1e-12},
    "hidden_dropout_prob": {"modernbert": 0.0, "albert": 0.0, "": 0.1},
    "attention_probs_dropout_prob": {"modernbert": 0.0, "albert": 0.0, "": 0.1},
    "initializer_range": {"": 0.02},
    "pad_token_id": {
        **{"roberta": 1, "xlm-roberta": 1, "camembert": 1, "mpnet": 1},
        **{"modernbert": 50283, "": 0},
    },
}
# Families whose attention looks to the left alone where the config says that they decode.
_DECODERS: tuple[BertKind, ...] = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


def read_bert(family: BertKind, content: Json, where: str) -> dict[str, Any]:
    """Return the fields of an `EncoderConfig`.

    Raises:
        CheckpointError: a field is missing, or asks for what we do not compute.
    """
    if content.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(
            f"{where}: position_embedding_type is {content['position_embedding_type']!r}; only 'absolute' is computed"
        )
    if family in _DECODERS and content.get("is_decoder"):
        raise CheckpointError(
            f"{where}: is_decoder is true; only an encoder, which looks both ways, is computed"
        )
    fields = _common_fields(family, content, where)
    return fields | _family_fields(family, content, fields, where)


def _common_fields(family: BertKind, content: Json, where: str) -> dict[str, Any]:
    spelling = _SPELLING.get(family, {})
    fields = read_sizes(content, where, spelling)
    for name, defaults in _DEFAULTS.items():
        default = defaults.get(family, defaults[""])
        fields[name] = json_field(content, spelling.get(name, name), default, where)
    fields["hidden_act"] = read_activation(fields["hidden_act"], where)
    return fields


def _family_fields(family: BertKind, content: Json, fields: Json, where: str) -> dict[str, Any]:
    types = json_field(content, "type_vocab_size", 2, where)
    match family:
        case "bert":
            position = json_field(content, "embedkit_position", "learned", where)
            return {"type_vocab_size": types, "position": position}
        case "roberta" | "xlm-roberta" | "camembert":
            return {"type_vocab_size": types, "position_offset": fields["pad_token_id"] + 1}
        case "distilbert":
            return {"type_vocab_size": 0}
        case "mpnet":
            return {
                "type_vocab_size": 0,
                "position_offset": 2,  # whatever the padding's id is: its authors' code has it fixed
                "relative_attention_num_buckets": json_field(
                    content, "relative_attention_num_buckets", 32, where
                ),
            }
        case "albert":
            if content.get("inner_group_num", 1) != 1:
                raise CheckpointError(
                    f"{where}: inner_group_num is {content['inner_group_num']}; only 1 is computed"
                )
            return {
                "type_vocab_size": types,
                "embedding_size": json_field(content, "embedding_size", 128, where),
                "num_hidden_groups": json_field(content, "num_hidden_groups", 1, where),
            }
        case "electra":
            size = json_field(content, "embedding_size", 128, where)
            return {
                "type_vocab_size": types,
                "embedding_size": None if size == fields["hidden_size"] else size,
            }
        case "modernbert":
            return _modernbert_fields(content, where)


def _modernbert_fields(content: Json, where: str) -> dict[str, Any]:
    every = json_field(content, "global_attn_every_n_layers", 3, where)
    layer_types = json_field(content, "layer_types", list[Any](), where)
    if layer_types:
        every = _global_every(layer_types, where)
    far = _rope_theta(content, "full_attention", "global_rope_theta", 160_000.0, where)
    # An old config that writes null, rather than nothing, means the theta of the global layers.
    usual = far if content.get("local_rope_theta", 0) is None else 10_000.0
    return {
        "type_vocab_size": 0,
        "position": "rope",
        "norm_first": True,
        "gated_mlp": True,
        "norm_bias": json_field(content, "norm_bias", False, where),
        "attention_bias": json_field(content, "attention_bias", False, where),
        "mlp_bias": json_field(content, "mlp_bias", False, where),
        "local_attention": json_field(content, "local_attention", 128, where),
        "global_attn_every_n_layers": every,
        "global_rope_theta": far,
        "local_rope_theta": _rope_theta(content, "sliding_attention", "local_rope_theta", usual, where),
    }


def _rope_theta(content: Json, kind: str, old_key: str, default: float, where: str) -> float:
    """Read the base of the rotary frequencies of one kind of layer: the newer spelling by kind, or the older by key."""
    rope = json_field(content, "rope_parameters", dict[str, Any](), where)
    parameters = json_field(rope, kind, dict[str, Any](), where)
    rope_type = json_field(parameters, "rope_type", "default", where)
    if rope_type != "default":
        raise CheckpointError(f"{where}: rope_type is {rope_type!r}; only 'default' is computed")
    return json_field(parameters, "rope_theta", json_field(content, old_key, default, where), where)


def _global_every(layer_types: list[Any], where: str) -> int:
    """Find n such that every n-th layer, from the first, attends globally."""
    for every in range(1, len(layer_types) + 1):
        if all((kind == "full_attention") == (i % every == 0) for i, kind in enumerate(layer_types)):
            return every
    raise CheckpointError(
        f"{where}: layer_types is {layer_types}; only global attention in every n-th layer is computed"
    )


def write_bert(family: BertKind, config: EncoderConfig) -> dict[str, Any]:
    """Return the content of a config.json, but for the names of classes."""
    content: dict[str, Any] = {}
    spelling = _SPELLING.get(family, {})
    for name in (*SIZES, *_DEFAULTS):
        content[spelling.get(name, name)] = getattr(config, name)
    content[spelling.get("hidden_act", "hidden_act")] = WRITTEN_ACTIVATIONS[config.hidden_act]
    match family:
        case "bert" | "roberta" | "xlm-roberta" | "camembert":
            content |= {"type_vocab_size": config.type_vocab_size, "position_embedding_type": "absolute"}
            if config.position == "sinusoidal":  # for others a table like any; we know that it is not trained
                content["embedkit_position"] = "sinusoidal"
        case "mpnet":
            content["relative_attention_num_buckets"] = config.relative_attention_num_buckets
        case "albert":
            content |= {
                "type_vocab_size": config.type_vocab_size,
                "embedding_size": config.embedding_size,
                "num_hidden_groups": config.num_hidden_groups or config.num_hidden_layers,
                "inner_group_num": 1,
            }
        case "modernbert":
            names = (
                "norm_bias",
                "attention_bias",
                "mlp_bias",
                "local_attention",
                "global_attn_every_n_layers",
            )
            content |= {name: getattr(config, name) for name in names}
            content |= {
                "global_rope_theta": config.global_rope_theta,
                "local_rope_theta": config.local_rope_theta,
                "embedding_dropout": config.hidden_dropout_prob,
            }
        case "electra":
            content |= {
                "type_vocab_size": config.type_vocab_size,
                "embedding_size": config.embedding_size or config.hidden_size,
            }
        case "distilbert":
            content["sinusoidal_pos_embds"] = False
    return content
