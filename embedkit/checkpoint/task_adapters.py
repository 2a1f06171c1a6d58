"""Models with a LoRA adapter for each of several tasks in the same file, as Jina embeddings v3: one is merged when weights are read.

    NAME.parametrizations.weight.original       the weight itself
    NAME.parametrizations.weight.0.lora_A, _B   two narrow matrices for each task, stacked along the first axis

A weight of a linear layer is W + B·A·alpha/rank, a table of embeddings W + A·B·alpha/rank (Sturua et al. 2024,
https://arxiv.org/abs/2409.10173, section 3; Hu et al. 2022, https://arxiv.org/abs/2106.09685, section 4.1). No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.checkpoint.json_files import json_field
from embedkit.checkpoint.stored_arrays import Float32, StoredArray
from embedkit.errors import CheckpointError

_MARK = ".parametrizations."
_ORIGINAL = ".parametrizations.weight.original"
_A, _B = ".parametrizations.weight.0.lora_A", ".parametrizations.weight.0.lora_B"


@dataclass(frozen=True, kw_only=True)
class TaskAdapters:
    """The tasks that a model has adapters for, and which of them is `chosen`; None: none, the weights stay as they are."""

    names: tuple[str, ...]
    rank: int
    alpha: float
    chosen: str | None = None

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def read_task_adapters(
    content: Mapping[str, Any], where: str, *, task: str | None, default: str | None
) -> TaskAdapters | None:
    """Read from a config.json which tasks have adapters; None where there are none.

    `task` is what is asked for; where that is None, `default`, if it is the name of one.

    Raises:
        CheckpointError: there is no such task, or a field is of another kind.
    """
    names = json_field(content, "lora_adaptations", list[Any](), where)
    if task is not None and task not in names:
        raise CheckpointError(
            f"{where}: task {task!r} was asked for; "
            + (
                f"the model has adapters for {', '.join(map(str, names))}"
                if names
                else "the model has no task adapters"
            )
        )
    if not names:
        return None
    rank = json_field(content, "lora_rank", 4, where)
    if rank < 1 or not all(isinstance(name, str) for name in names):
        raise CheckpointError(
            f"{where}: lora_adaptations is {names} and lora_rank {rank}; wanted names, and at least 1"
        )
    return TaskAdapters(
        names=tuple(names),
        rank=rank,
        alpha=json_field(content, "lora_alpha", 1.0, where),
        chosen=task if task is not None else default if default in names else None,
    )


def merged_tasks(
    stored: Mapping[str, StoredArray], tasks: TaskAdapters | None, where: Path
) -> dict[str, StoredArray]:
    """Return a model's weights under their plain names, with what the chosen task adds to them, in fp32.

    Raises:
        CheckpointError: matrices are missing, or do not fit the config.
    """
    if tasks is None:
        return dict(stored)
    found = {name: array for name, array in stored.items() if _MARK not in name}
    number = None if tasks.chosen is None else tasks.names.index(tasks.chosen)
    for name, array in stored.items():
        if not name.endswith(_ORIGINAL):
            continue
        module = name.removesuffix(_ORIGINAL)
        found[f"{module}.weight"] = array
        if number is not None:
            added = _product(stored, module, array.shape, tasks, number, where)
            found[f"{module}.weight"] = StoredArray(array.fp32() + added, "float32")
    return found


def _product(
    stored: Mapping[str, StoredArray],
    module: str,
    shape: tuple[int, ...],
    tasks: TaskAdapters,
    number: int,
    where: Path,
) -> Float32:
    a, b = stored.get(module + _A), stored.get(module + _B)
    count, rank = len(tasks.names), tasks.rank
    turned = module.endswith("_embeddings")
    down, up = (shape[0], shape[1]) if turned else (shape[1], shape[0])
    wanted = ((count, down, rank), (count, rank, up)) if turned else ((count, rank, down), (count, up, rank))
    if a is None or b is None or (a.shape, b.shape) != wanted:
        shapes = [None if each is None else each.shape for each in (a, b)]
        raise CheckpointError(
            f"{where}: the task adapters of {module} have shapes {shapes}; config.json asks for {list(wanted)}. "
            "Take both from the same model"
        )
    rows = np.array([number])
    left, right = a.fp32(rows)[0], b.fp32(rows)[0]
    product = left @ right if turned else right @ left
    return np.asarray(product * np.float32(tasks.scale), np.float32)
