"""Training by low-rank adaptation: what a recipe asks for, put on an encoder, and what is written in the end."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from embedkit.checkpoint.adapter_writing import AdapterOf, write_adapter
from embedkit.checkpoint.folder import WEIGHTS
from embedkit.checkpoint.names import Family
from embedkit.errors import TrainingError
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.lora import add_lora, merge_lora
from embedkit.models import lasting_name
from embedkit.training.engine.recipes import LoraRecipe

M = TypeVar("M", bound=nn.Module)


def adapt(encoder: TransformerEncoder, recipe: LoraRecipe | None, *, seed: int) -> None:
    """Freeze an encoder and adapt its layers, where the recipe asks for it.

    Raises:
        TrainingError: the model has layers that cannot be adapted.
    """
    if recipe is None:
        return
    shape = {"rank": recipe.rank, "alpha": recipe.alpha, "dropout": recipe.dropout}
    try:
        add_lora(encoder, targets=recipe.targets, seed=seed, **shape)  # type: ignore[arg-type] # of three kinds of numbers
    except ValueError as exc:
        raise TrainingError(f"lora: {exc}. Leave out --lora-rank and the table [lora]") from exc


def merged(model: M, recipe: LoraRecipe | None) -> M:
    """Return a model whose layers are all plain ones: a copy where some are adapted."""
    if recipe is None:
        return model
    whole = deepcopy(model)
    merge_lora(whole)
    return whole


def adapter_of(recipe: LoraRecipe | None, base: Path, *, task: str, is_adapter: bool) -> AdapterOf | None:
    """Return what an adapter of the model in a folder says of it; None where the whole model is to be written.

    Raises:
        TrainingError: the model is itself one that an adapter changes.
    """
    if recipe is None or recipe.save == "merged":
        return None
    if is_adapter:
        raise TrainingError(
            f"lora.save is 'adapter', and {base} is an adapter itself. Take lora.save=merged, or first merge it with: "
            f"embedkit model convert {base} --output NEW"
        )
    return AdapterOf(
        base=lasting_name(base), rank=recipe.rank, alpha=recipe.alpha, dropout=recipe.dropout, task=task
    )


def leave_adapter(
    draft: Path,
    encoder: TransformerEncoder,
    family: Family,
    about: AdapterOf,
    *,
    prefix: str = "",
    head: Mapping[str, Tensor] | None = None,
) -> None:
    """Put an adapter in the place of the encoder's config and weights in a folder."""
    write_adapter(draft, encoder, family, about, prefix=prefix, whole=head)
    for name in ("config.json", WEIGHTS):
        (draft / name).unlink()
