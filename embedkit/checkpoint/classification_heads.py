"""The heads of cross-encoders: what each family puts on its encoder, as its config.json says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedkit.checkpoint.names import Family, has_head
from embedkit.errors import CheckpointError
from embedkit.model.config import EncoderConfig, HeadActivation, HeadConfig

_DROPOUT_KEYS: dict[str, str] = {
    "distilbert": "seq_classif_dropout",
    "albert": "classifier_dropout_prob",
    "deberta-v2": "cls_dropout",
}
_MODERN_ACTIVATIONS: dict[str, HeadActivation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "tanh": "tanh",
}
_WRITTEN_MODERN: dict[HeadActivation, str] = {"gelu_tanh": "gelu_pytorch_tanh"}


def read_head(
    family: Family, config: EncoderConfig, content: Mapping[str, Any], num_labels: int, where: str
) -> HeadConfig:
    head = default_head(family, config, num_labels)
    dropout = content.get(_DROPOUT_KEYS.get(family, "classifier_dropout"))
    pooling, activation, bias = head.pooling, head.activation, head.bias
    if family == "eurobert":
        named = content.get("classifier_pooling", "late")
        if named not in ("bos", "mean"):
            raise CheckpointError(
                f"{where}: classifier_pooling is {named!r}; of a eurobert cross-encoder bos and mean are computed"
            )
        pooling = "cls" if named == "bos" else "mean"
    if family == "modernbert":
        pooling = content.get("classifier_pooling", "cls")
        bias = bool(content.get("classifier_bias", False))
        name = content.get("classifier_activation", "gelu")
        if name not in _MODERN_ACTIVATIONS:
            raise CheckpointError(
                f"{where}: classifier_activation is {name!r}; known are {', '.join(_MODERN_ACTIVATIONS)}"
            )
        activation = _MODERN_ACTIVATIONS[name]
    try:
        return HeadConfig(
            num_labels=num_labels,
            pooling=pooling,
            activation=activation,
            bias=bias,
            norm=head.norm,
            dense=head.dense,
            out_bias=head.out_bias,
            dropout=head.dropout if dropout is None else float(dropout),
        )
    except ValueError as exc:
        raise CheckpointError(f"{where}: {exc}. Take the model's own config.json") from exc


def default_head(family: Family, config: EncoderConfig, num_labels: int) -> HeadConfig:
    """Return the shape of the head that transformers puts on an encoder of this family.

    Raises:
        CheckpointError: no cross-encoder of this family is computed.
    """
    if not has_head(family):
        raise CheckpointError(
            f"a {family} cross-encoder, or a classification head on such a model, is not computed. Take a model of another family"
        )
    if family in ("qwen2", "qwen3", "llama", "mistral", "gemma3_text", "gpt2"):
        return HeadConfig(num_labels=num_labels, pooling="last", dense=False, out_bias=False, dropout=0.0)
    if family in ("electra", "deberta-v2", "eurobert"):
        return HeadConfig(num_labels=num_labels, activation="gelu", dropout=config.hidden_dropout_prob)
    if family == "modernbert":
        return HeadConfig(num_labels=num_labels, activation="gelu", bias=False, norm=True, dropout=0.0)
    if family == "distilbert":
        return HeadConfig(num_labels=num_labels, activation="relu", dropout=0.2)
    dropout = 0.1 if family == "albert" else config.hidden_dropout_prob
    return HeadConfig(num_labels=num_labels, dropout=dropout)


def head_content(family: Family, head: HeadConfig) -> dict[str, Any]:
    """Return what a config.json says of the head besides the number of its labels."""
    content: dict[str, Any] = {_DROPOUT_KEYS.get(family, "classifier_dropout"): head.dropout}
    if family == "eurobert":
        content["classifier_pooling"] = "bos" if head.pooling == "cls" else head.pooling
    if family == "modernbert":
        content |= {
            "classifier_pooling": head.pooling,
            "classifier_bias": head.bias,
            "classifier_activation": _WRITTEN_MODERN.get(head.activation, head.activation),
        }
    return content
