"""What embedkit knows of a family: one row of the table in `embedkit.checkpoint.families.table`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedkit.model.config import EncoderConfig

Json = Mapping[str, Any]  # Any: whatever JSON holds
Names = dict[str, tuple[str, ...]]  # ours -> theirs, to be stacked


@dataclass(frozen=True, kw_only=True)
class FamilyRow:
    """A family of models.

    | field | meaning |
    |---|---|
    | `architecture` | what the names of its classes in transformers begin with |
    | `base_prefix` | what stands before every name of the encoder once a head was saved with it |
    | `tokenizer_class` | what transformers reads its tokenizer with where the folder names nothing |
    | `ignored` | what the names of heads and buffers begin with, which an encoder does well without |
    | `read` | turns a config.json into the fields of an `EncoderConfig` |
    | `write` | turns an `EncoderConfig` into the content of a config.json, but for the names of classes |
    | `names` | maps the parameters of a `TransformerEncoder` to the family's, without the base prefix |
    | `head` | the classification head: sublayer of ours -> of theirs, with the base prefix where it has one |
    | `transposed` | how the names of matrices end that are stored with rows and columns exchanged |
    | `other_prefixes` | what may stand in place of the base prefix, and is never written |
    | `also` | other values of model_type that mean this family |
    | `own_code` | how the names of its classes begin where a folder brings them along as code |
    | `class_end` | how the name of the class ends that its encoder is saved as |
    """

    architecture: str
    base_prefix: str
    tokenizer_class: str
    ignored: tuple[str, ...]
    read: Callable[[Json, str], dict[str, Any]]
    write: Callable[[EncoderConfig], dict[str, Any]]
    names: Callable[[EncoderConfig], Names]
    head: Mapping[str, str] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    other_prefixes: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    own_code: tuple[str, ...] = ()
    class_end: str = "Model"


def add(names: Names, ours: str, theirs: tuple[str, ...], *, bias: bool) -> None:
    """Add a layer's weight, and its bias where it has one."""
    for kind in ("weight", "bias") if bias else ("weight",):
        names[f"{ours}.{kind}"] = tuple(f"{name}.{kind}" for name in theirs)


def add_layers(
    names: Names, config: EncoderConfig, prefix: str, layer: Mapping[str, tuple[str, ...]]
) -> None:
    """Add the parameters of all layers: `layer` maps sublayers of ours to theirs, after the prefix with the layer's number in it."""
    norm_bias = config.norm_bias and config.norm == "layer"
    for number in range(config.num_distinct_layers):
        for ours, theirs in layer.items():
            if "norm" in ours:
                bias = norm_bias
            elif "mlp" in ours:
                bias = config.down_bias if ours == "mlp.down" else config.mlp_bias
            else:
                bias = config.out_bias if ours == "attention.out" else config.attention_bias
            own = tuple(prefix.format(number) + name for name in theirs)
            add(names, f"layers.{number}.{ours}", own, bias=bias)
