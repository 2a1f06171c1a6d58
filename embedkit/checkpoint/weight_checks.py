"""The checks of a model folder's weights: names, shapes and number formats, whoever reads them. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from embedkit.checkpoint.families.row import Names
from embedkit.checkpoint.hub_weights import Stored, StoredT, unflashed, unpacked_experts
from embedkit.checkpoint.names import IGNORED_PREFIXES, IGNORED_SUFFIXES, Family, base_prefixes, transposed
from embedkit.errors import CheckpointError
from embedkit.model.shapes import Shapes

FLOATS = ("float64", "float32", "float16", "bfloat16")  # what weights may be stored as


def damaged(path: Path, exc: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: cannot be read as safetensors ({exc}). The file is cut short or damaged; copy it again"
    )


def strip_base_prefix(stored: Mapping[str, StoredT], family: Family) -> dict[str, StoredT]:
    """Name the encoder's weights as if it had been saved alone, and old norm weights as they are named today.

    What the family stores with rows and columns exchanged is turned.
    """
    prefixes, turned = base_prefixes(family), transposed(family)
    if family == "xlm-roberta":
        stored = unflashed(stored)
    elif family == "embedkit":
        stored = unpacked_experts(stored)
    renamed: dict[str, StoredT] = {}
    for name, weight in stored.items():
        new = name
        for prefix in prefixes:
            new = new.removeprefix(prefix)
        new = new.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        renamed[new] = cast("StoredT", weight.T) if turned and new.endswith(turned) else weight
    return renamed


def take(
    names: Names,
    shapes: Shapes,
    stored: dict[str, StoredT],
    where: Path,
    *,
    splits: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, tuple[StoredT, ...]]:
    """Take a module's weights out of `stored`, under our names: several where they are to be stacked.

    `splits` says how many rows each of them has where that is not the same number.

    Raises:
        CheckpointError: a weight is missing, or has another shape than the config asks for, or is no floating point.
    """
    missing = [theirs for parts in names.values() for theirs in parts if theirs not in stored]
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} of {sum(map(len, names.values()))} weights are missing: {some(missing)}. "
            "Copy the weights again from where the model came from"
        )
    taken: dict[str, tuple[StoredT, ...]] = {}
    for ours, shape in shapes.items():
        parts = tuple(stored.pop(theirs) for theirs in names[ours])
        rows = (splits or {}).get(ours) or (shape[0] // len(parts),) * len(parts)
        if len(rows) != len(parts):
            rows = shape[:1]
        for theirs, part, size in zip(names[ours], parts, rows, strict=True):
            wanted = (size, *shape[1:])
            if tuple(part.shape) != wanted:
                raise CheckpointError(
                    f"{where}: weight {theirs!r} has shape {tuple(part.shape)}; config.json asks for {wanted}. "
                    "Take both from the same model"
                )
            dtype = str(part.dtype).removeprefix("torch.")
            if dtype not in FLOATS:
                raise CheckpointError(
                    f"{where}: weight {theirs!r} is {dtype}; it must be one of {', '.join(FLOATS)}. "
                    "Take the weights as they were before quantization"
                )
        taken[ours] = parts
    return taken


def check_nothing_left(
    stored: Mapping[str, Stored], family: Family, where: Path, *, what: str = "encoder"
) -> None:
    """Refuse weights that are neither used nor known to be superfluous.

    Raises:
        CheckpointError: there are some.
    """
    ignored = IGNORED_PREFIXES[family]
    left = [name for name in stored if not name.startswith(ignored) and not name.endswith(IGNORED_SUFFIXES)]
    if left:
        raise CheckpointError(
            f"{where}: {len(left)} weights that a {family} {what} has no place for: {some(left)}. "
            "Is config.json of the same model?"
        )


def check_dense_empty(stored: Mapping[str, Stored], where: Path) -> None:
    """Refuse more weights than a module that stands on the encoder has.

    Raises:
        CheckpointError: there are some.
    """
    if stored:
        raise CheckpointError(f"{where}: weights that this module has no place for: {some(stored)}")


def some(names: Sequence[str] | Mapping[str, Any]) -> str:
    """List the first few of some names."""
    listed = sorted(names)
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    return ", ".join(listed[:4]) + more
