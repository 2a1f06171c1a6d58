"""Adapters as PEFT writes them: what LoRA adds to the weights of another model is added when they are read. No torch here.

    adapter_config.json           of which model it is, the rank, and what the product is multiplied by
    adapter_model.safetensors     two narrow matrices for each weight that it changes, and whole weights that stand in for the model's

Source: Hu et al. 2022, https://arxiv.org/abs/2106.09685, section 4.1; the file's names and fields are PEFT's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.checkpoint.stored_arrays import Float32, StoredArray, read_arrays
from embedkit.checkpoint.weight_checks import some
from embedkit.errors import CheckpointError
from embedkit.models import SHIPPED, shipped

CONFIG, FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
_A, _B = re.compile(r"\.lora_(embedding_)?A(\.weight)?$"), ".lora_{}B{}"
# What changes how an adapter is computed, and its value where it does not.
_PLAIN: dict[str, tuple[object, ...]] = {
    "use_dora": (None, False),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "use_qalora": (None, False),
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
    "lora_bias": (None, False),
    "megatron_config": (None,),
}


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, read but for its weights, and that of the model that it changes.

    `alpha` over the rank is what products are multiplied by, or over its root; patterns name weights with others. `turned` says that
    the model's weights are stored the other way round, as GPT-2's are.
    """

    path: Path
    base: Path
    task: str | None
    alpha: float
    by_root: bool
    alpha_pattern: Mapping[str, float]
    turned: bool = False

    @property
    def file(self) -> Path:
        return self.path / FILE

    def scale(self, module: str, rank: int) -> float:
        """Return what the product of a module's two matrices is multiplied by."""
        found = [alpha for pattern, alpha in self.alpha_pattern.items() if _is_of(module, pattern)]
        alpha = found[0] if found else self.alpha
        return alpha / (math.sqrt(rank) if self.by_root else rank)


def read_adapter(folder: Path) -> Adapter | None:
    """Read the adapter in a folder; None where there is none.

    Raises:
        CheckpointError: its model is not there, or it is of a kind that we do not compute.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    content, where = read_json(path, None), str(path)
    kind = content.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{where}: peft_type is {kind!r}; only LORA is computed. Merge it into the model with peft's merge_and_unload, and save that"
        )
    for key, plain in _PLAIN.items():
        if content.get(key) not in plain:
            raise CheckpointError(
                f"{where}: {key} is {content[key]!r}, which is not computed. Merge the adapter into the model with peft's "
                "merge_and_unload, and save that"
            )
    if not (folder / FILE).is_file():
        raise CheckpointError(f"{folder}: {CONFIG} without {FILE}. Copy it from where the adapter came from")
    patterns = json_field(content, "alpha_pattern", dict[str, Any](), where)
    return Adapter(
        path=folder,
        base=_find_base(folder, json_field(content, "base_model_name_or_path", "", where), where),
        task=content.get("task_type"),
        alpha=float(json_field(content, "lora_alpha", 8.0, where)),
        by_root=json_field(content, "use_rslora", False, where),
        alpha_pattern={str(name): float(alpha) for name, alpha in patterns.items()},
        turned=json_field(content, "fan_in_fan_out", False, where),
    )


def _find_base(folder: Path, named: str, where: str) -> Path:
    """Find the model that an adapter changes: the folder that is named, from here or from the adapter's, or a shipped one."""
    if named in SHIPPED:
        return shipped(named)
    for place in (Path(named), folder / named):
        if named and place.resolve() != folder.resolve() and (place / "config.json").is_file():
            return place
    if (folder / "config.json").is_file() and any(folder.glob("model*.safetensors*")):
        return folder  # the model lies beside its adapter
    raise CheckpointError(
        f"{where}: base_model_name_or_path is {named!r}, and there is no such model folder. Fetch the model "
        f"(embedkit model download OWNER/NAME), and write its folder there"
    )


def merged_arrays(stored: dict[str, StoredArray], adapter: Adapter | None) -> dict[str, StoredArray]:
    """Return a model's weights with what an adapter adds to them, in fp32.

    Raises:
        CheckpointError: as `changes`.
    """
    if adapter is None:
        return stored
    shapes = {name: array.shape for name, array in stored.items()}
    found = dict(stored)
    for name, (added, whole) in changes(adapter, shapes).items():
        found[name] = StoredArray(added if whole else stored[name].fp32() + added, "float32")
    return found


def changes(adapter: Adapter, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[Float32, bool]]:
    """Return what an adapter does to a model's weights, by their stored names: what is added, or (True) what stands in their place.

    A weight of a head that the model lacks is new.

    Raises:
        CheckpointError: the adapter is of another model, or a file is damaged.
    """
    parts = read_arrays([adapter.file])
    found: dict[str, tuple[Float32, bool]] = {}
    strangers: list[str] = []
    for name, array in parts.items():
        plain = name.removeprefix(PREFIX)
        if match := _A.search(plain):
            module = plain[: match.start()]
            embedding, suffix = match[1] or "", match[2] or ""
            other = parts.get(PREFIX + module + _B.format(embedding, suffix))
            target = _target(f"{module}.weight", shapes)
            if target is None or other is None:
                strangers.append(plain)
                continue
            found[target] = (
                _product(adapter, module, array, other, shapes[target], embedding=bool(embedding)),
                False,
            )
        elif ".lora_" not in plain:
            plain = plain.replace(".modules_to_save", "").replace(".base_layer", "")
            found[_target(plain, shapes) or plain] = (array.fp32(), True)
    if strangers or not found:
        raise CheckpointError(
            f"{adapter.file}: the adapter changes {some(strangers) if strangers else 'nothing'}, which {adapter.base} does not have. "
            "Is it of another model? See base_model_name_or_path in adapter_config.json"
        )
    return found


def _target(name: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Find the stored name of a weight: an adapter's may have a prefix that the file has not, or the other way round."""
    if name in shapes:
        return name
    _, _, shorter = name.partition(".")
    if shorter in shapes:
        return shorter
    ends = [stored for stored in shapes if stored.partition(".")[2] == name]
    return ends[0] if len(ends) == 1 else None


def _product(
    adapter: Adapter, module: str, a: StoredArray, b: StoredArray, shape: tuple[int, ...], *, embedding: bool
) -> Float32:
    down, up = a.fp32(), b.fp32()
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
        raise CheckpointError(
            f"{adapter.file}: the matrices of {module} are {down.shape} and {up.shape}; they do not fit together. Copy the file again"
        )
    product = up @ down * np.float32(adapter.scale(module, len(down)))
    # A square matrix does not show whether it is turned.
    if embedding or adapter.turned or (product.shape != shape and product.T.shape == shape):
        product = product.T
    if product.shape != shape:
        raise CheckpointError(
            f"{adapter.file}: what is added to {module} has shape {product.shape}; the weight of {adapter.base} has {shape}. "
            "The adapter is of another model: see base_model_name_or_path in adapter_config.json"
        )
    return np.ascontiguousarray(product)


def _is_of(module: str, pattern: str) -> bool:
    """Say whether PEFT's pattern names a module: its end, after a dot, as a regular expression."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None
