"""`config.json` of an encoder that no other library computes: the fields of `EncoderConfig`, under `model_type` "embedkit".

Under a family's name another library would load what it knows of such a model, warn of the rest, and give other vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Literal

from embedkit.errors import CheckpointError, RecipeError
from embedkit.model.config import EncoderConfig
from embedkit.recipe import build

OWN: Literal["embedkit"] = "embedkit"
# What else may stand in the file: heads, labels, and what conversions note.
_BESIDE = frozenset(
    {
        *("architectures", "model_type", "tie_word_embeddings", "tokenizer_class", "dtype", "torch_dtype"),
        *("id2label", "label2id", "classifier_dropout", "embedkit", "output_hidden_states"),
        *("sbert_ce_default_activation_function", "sentence_transformers", "quantization_config"),
    }
)


def read_own_config(content: Mapping[str, Any], where: str, *, required: Sequence[str]) -> EncoderConfig:
    """Read a config of ours, strictly: a field that is not known could change every vector.

    Raises:
        CheckpointError: a field is missing, unknown, of another type or out of range.
    """
    known = {each.name for each in fields(EncoderConfig)}
    own = {key: value for key, value in content.items() if key not in _BESIDE}
    missing = sorted(set(required) - set(own))
    if missing:
        raise CheckpointError(f"{where}: missing {', '.join(missing)}. Take the model's own config.json")
    unknown = sorted(set(own) - known)
    if unknown:
        raise CheckpointError(
            f"{where}: {', '.join(map(repr, unknown))} is not known to this release of embedkit, which cannot compute the model. "
            "Update embedkit"
        )
    try:
        return build(EncoderConfig, own, where)
    except RecipeError as exc:
        raise CheckpointError(f"{exc}. Take the model's own config.json") from exc


# Fields that older releases do not know, and refuse: left out where they say the usual.
_NAMES = [each.name for each in fields(EncoderConfig)]
_LATER = frozenset(_NAMES[_NAMES.index("norm") :])


def own_fields(config: EncoderConfig) -> dict[str, Any]:
    """Return the fields to write; one that is None is left out, and read as that, as is a newer one that says the usual."""
    usual = asdict(EncoderConfig())
    return {
        name: value
        for name, value in asdict(config).items()
        if value is not None and not (name in _LATER and value == usual[name])
    }
