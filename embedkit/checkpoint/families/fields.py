"""Fields of a config.json that several families share: sizes, activations, what must be as it usually is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedkit.checkpoint.families.row import Json
from embedkit.checkpoint.json_files import json_field
from embedkit.errors import CheckpointError
from embedkit.model.config import Activation

ACTIVATIONS: dict[str, Activation] = {
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
WRITTEN_ACTIVATIONS: dict[Activation, str] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_new",
    "relu": "relu",
    "silu": "silu",
}
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)

# GPT-2's, which the code that the first NomicBERT folders bring along has taken over.
GPT2_SPELLING = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
}


def read_sizes(content: Json, where: str, spelling: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the sizes that every config has, under our names; `spelling` says how the family writes them.

    Raises:
        CheckpointError: one is missing or no whole number.
    """
    found: dict[str, Any] = {}
    for name in SIZES:
        key = (spelling or {}).get(name, name)
        if type(content.get(key)) is not int:
            raise CheckpointError(
                f"{where}: {key!r} is {content.get(key)!r}; it must be a whole number. Take the model's own config.json"
            )
        found[name] = content[key]
    return found


def read_fields(content: Json, where: str, **defaults: Any) -> dict[str, Any]:  # Any: whatever JSON holds
    """Return fields that a family names as we do, each with what it is where the config leaves it out.

    Raises:
        CheckpointError: one is of another kind.
    """
    return {name: json_field(content, name, default, where) for name, default in defaults.items()}


def read_activation(name: object, where: str) -> Activation:
    """Return an activation of a feed-forward layer by its name.

    Raises:
        CheckpointError: it is none that we compute.
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise CheckpointError(f"{where}: activation is {name!r}; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def wanted(content: Json, where: str, **usual: Any) -> None:  # Any: whatever JSON holds
    """Refuse a config in which one of these fields says anything but what it usually does; left out and null are usual.

    Raises:
        CheckpointError: one does.
    """
    for key, value in usual.items():
        given = content.get(key)
        if given is not None and given != value:
            raise CheckpointError(f"{where}: {key} is {given!r}; only {value!r} is computed")
