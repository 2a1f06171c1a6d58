"""An adapter as PEFT writes it: the two narrow matrices of each layer that was adapted, without the model they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedkit.checkpoint.adapters import CONFIG, FILE, PREFIX
from embedkit.checkpoint.json_files import write_json
from embedkit.checkpoint.names import Family, encoder_names, transposed
from embedkit.checkpoint.weights import save_tensors
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.lora import LoraLinear
from embedkit.model.shapes import encoder_splits


@dataclass(frozen=True, kw_only=True)
class AdapterOf:
    """What an adapter's config says besides its weights: the folder or name of the model that it changes, and PEFT's task."""

    base: str
    rank: int
    alpha: float
    dropout: float = 0.0
    task: str = "FEATURE_EXTRACTION"


def write_adapter(
    folder: Path,
    encoder: TransformerEncoder,
    family: Family,
    about: AdapterOf,
    *,
    prefix: str = "",
    whole: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` into a folder.

    `prefix` stands before the names of an encoder that has a head beside it; `whole` are weights, by their stored names, that stand in
    for the model's.
    """
    factors = _factors(encoder, family, prefix)
    tensors = {f"{PREFIX}{name}": tensor for name, tensor in (whole or {}).items()}
    for module, (a, b) in factors.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = a
        tensors[f"{PREFIX}{module}.lora_B.weight"] = b
    save_tensors(tensors, folder / FILE)
    content: dict[str, Any] = {  # Any: whatever JSON holds
        "peft_type": "LORA",
        "task_type": about.task,
        "base_model_name_or_path": about.base,
        "r": about.rank,
        "lora_alpha": about.alpha,
        "lora_dropout": about.dropout,
        "bias": "none",
        "fan_in_fan_out": bool(transposed(family)),
        "inference_mode": True,
        # All of them by their whole names: an end such as output.dense would name other layers, too.
        "target_modules": sorted(factors),
        "modules_to_save": sorted({name.rpartition(".")[0].partition(".")[0] for name in whole or {}})
        or None,
    }
    write_json(folder / CONFIG, content)


def _factors(encoder: TransformerEncoder, family: Family, prefix: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A and B of each stored layer; of those that are one layer here each has the same A, and its part of B."""
    names, splits = encoder_names(family, encoder.config), encoder_splits(encoder.config)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for path, layer in encoder.named_modules():
        if not isinstance(layer, LoraLinear):
            continue
        ours = f"{path}.weight"
        theirs = names[ours]
        rows = list(splits.get(ours) or (layer.out_features // len(theirs),) * len(theirs))
        a, b = (part.detach().float().cpu() for part in (layer.lora_a, layer.lora_b))
        parts: tuple[Tensor, ...] = torch.split(b, rows) if len(theirs) > 1 else (b,)
        for name, part in zip(theirs, parts, strict=True):
            found[prefix + name.removesuffix(".weight")] = (a.contiguous().clone(), part.contiguous().clone())
    return found
