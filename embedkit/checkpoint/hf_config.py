"""`config.json` as Hugging Face writes it <-> `EncoderConfig`; our own kind is in `embedkit.checkpoint.own_config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from embedkit.checkpoint.json_files import json_field
from embedkit.checkpoint.names import FAMILIES, Family, HubFamily
from embedkit.checkpoint.own_config import OWN, own_fields, read_own_config
from embedkit.checkpoint.quantized import QUANTIZATION
from embedkit.errors import CheckpointError
from embedkit.model.config import Activation, EncoderConfig

Json = Mapping[str, Any]  # Any: whatever JSON holds

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# Written back under the name that every release of transformers knows.
_WRITTEN_ACTIVATIONS: dict[Activation, str] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_new",
    "relu": "relu",
    "silu": "silu",
}

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
_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_ARCHITECTURES: dict[Family, str] = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "distilbert": "DistilBert",
    "mpnet": "MPNet",
    "albert": "Albert",
    "modernbert": "ModernBert",
    "embedkit": "Embedkit",
}
GENERATOR_PREFIX = "embedkit-"  # begins the model_type of our own folders of text generators
# What transformers reads a family's tokenizer with where the folder names nothing.
TOKENIZER_CLASSES: dict[Family, str] = {
    "bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "distilbert": "BertTokenizer",
    "mpnet": "MPNetTokenizer",
    "albert": "AlbertTokenizer",
    "modernbert": "TokenizersBackend",
    "embedkit": "BertTokenizer",
}
# Families whose attention looks to the left alone where the config says that they decode.
_DECODERS: tuple[Family, ...] = ("bert", "roberta", "xlm-roberta", "camembert")


def read_config(content: Json, where: str) -> tuple[Family, EncoderConfig]:
    """Turn the content of a `config.json` into a family and an encoder's shape.

    Raises:
        CheckpointError: an unknown family, a missing field, or a piece that we do not compute.
    """
    family = content.get("model_type")
    check_no_generator(content, where)
    if content.get("quantization_config", QUANTIZATION) not in (None, QUANTIZATION):
        raise CheckpointError(
            f"{where}: has a quantization_config; take the model's weights as they were before quantization"
        )
    if family == OWN:
        return OWN, read_own_config(content, where, required=_REQUIRED)
    if family not in FAMILIES:
        raise CheckpointError(
            f"{where}: model_type is {family!r}; embedkit reads {', '.join(FAMILIES)}. Choose a model of one of these"
        )
    family = cast("HubFamily", family)
    if content.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(
            f"{where}: position_embedding_type is {content['position_embedding_type']!r}; only 'absolute' is computed"
        )
    if family in _DECODERS and content.get("is_decoder"):
        raise CheckpointError(
            f"{where}: is_decoder is true; only an encoder, which looks both ways, is computed"
        )
    fields = _common_fields(family, content, where)
    fields |= _family_fields(family, content, fields, where)
    try:
        return family, EncoderConfig(**fields)
    except (ValueError, TypeError) as exc:
        raise CheckpointError(f"{where}: {exc}. Take the model's own config.json") from exc


def check_no_generator(content: Json, where: str) -> None:
    """Refuse a text generator where an encoder or a cross-encoder is wanted.

    Raises:
        CheckpointError: it is one.
    """
    kind = str(content.get("model_type"))
    if kind.startswith(GENERATOR_PREFIX):
        raise CheckpointError(
            f"{where}: this is a text generator ({kind.removeprefix(GENERATOR_PREFIX)}), which gives no vectors and scores no pairs. "
            "Generate texts with it: embedkit generate INPUT --model FOLDER"
        )


def _common_fields(family: HubFamily, content: Json, where: str) -> dict[str, Any]:
    spelling = _SPELLING.get(family, {})
    fields: dict[str, Any] = {}
    for name in _REQUIRED:
        key = spelling.get(name, name)
        if type(content.get(key)) is not int:
            raise CheckpointError(
                f"{where}: {key!r} is {content.get(key)!r}; it must be a whole number. Take the model's own config.json"
            )
        fields[name] = content[key]
    for name, defaults in _DEFAULTS.items():
        default = defaults.get(family, defaults[""])
        fields[name] = json_field(content, spelling.get(name, name), default, where)
    activation = fields["hidden_act"]
    if activation not in _ACTIVATIONS:
        raise CheckpointError(f"{where}: activation is {activation!r}; known are {', '.join(_ACTIVATIONS)}")
    fields["hidden_act"] = _ACTIVATIONS[activation]
    return fields


def _family_fields(family: HubFamily, content: Json, fields: Json, where: str) -> dict[str, Any]:
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
        case "modernbert":
            return _modernbert_fields(content, where)
        case "embedkit":
            raise AssertionError("read by read_own_config")


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


def family_of(config: EncoderConfig) -> Family:
    """Return the family under which an encoder of this shape is saved: one that can say all of it, else our own."""
    family = _nearest_family(config)
    try:
        said = read_config(write_config(config, family), "config.json")[1] == config
    except CheckpointError:
        said = False
    return family if said else "embedkit"


def _nearest_family(config: EncoderConfig) -> HubFamily:
    if config.position == "rope":
        return "modernbert"
    if config.relative_attention_num_buckets:
        return "mpnet"
    if config.embedding_size is not None or config.num_hidden_groups is not None:
        return "albert"
    if config.type_vocab_size == 0:
        return "distilbert"
    return "roberta" if config.position_offset else "bert"


def write_config(config: EncoderConfig, family: Family, *, head: str = "Model") -> dict[str, Any]:
    """Turn an encoder's shape into the content of a `config.json`; `head` ends the name of its class.

    `write_config(config, "bert", head="ForMaskedLM")` names the architecture BertForMaskedLM.
    """
    content: dict[str, Any] = {"architectures": [_ARCHITECTURES[family] + head], "model_type": family}
    if family == OWN:
        return content | own_fields(config)
    spelling = _SPELLING.get(family, {})
    for name in (*_REQUIRED, *_DEFAULTS):
        content[spelling.get(name, name)] = getattr(config, name)
    content[spelling.get("hidden_act", "hidden_act")] = _WRITTEN_ACTIVATIONS[config.hidden_act]
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
        case "distilbert":
            content["sinusoidal_pos_embds"] = False
    return content
