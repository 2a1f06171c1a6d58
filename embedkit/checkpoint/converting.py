"""Copies of model folders: pickled weights turned into safetensors, weights stored in 16 or 8 bits."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedkit.checkpoint.adapter_merging import has_adapter, merge_adapter, merge_task
from embedkit.checkpoint.adapters import FILE
from embedkit.checkpoint.folder import PICKLED, RUN_FOLDER, WEIGHTS
from embedkit.checkpoint.json_files import read_json, write_json
from embedkit.checkpoint.quantized import COLUMN_SCALE, FEWEST, QUANTIZATION, ROW_SCALE, quantize
from embedkit.checkpoint.weights import read_tensors, save_tensors
from embedkit.errors import CheckpointError
from embedkit.models import missing_model
from embedkit.storage.files import new_folder

# What may say how a model is computed: settings, vocabularies, ColBERT's artifact.metadata, the question of a chat template.
KEPT = (".json", ".txt", ".md", ".model", ".safetensors", ".metadata", ".jinja")


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Read a `pytorch_model.bin` without running any code in it.

    Raises:
        CheckpointError: the file holds more than tensors, or is damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # the unpickler raises whatever a damaged byte leads it to
        reason = (str(exc).splitlines() or [repr(exc)])[0]
        raise CheckpointError(
            f"{path}: cannot be read as weights only ({reason}). It is damaged, or it holds code; "
            "take the model in safetensors from where it came from"
        ) from exc
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: holds more than a dict of tensors; wanted the weights of a model")
    # Tied weights are one storage under two names there; safetensors wants each on its own.
    return {str(name): tensor.contiguous().clone() for name, tensor in content.items()}


def convert_folder(
    source: str | Path, target: str | Path, *, dtype: torch.dtype | None = None, task: str | None = None
) -> Sequence[str]:
    """Copy a model folder with its weights in safetensors, and all of them as `dtype` where one is given; an adapter is merged, or that of `task`.

    Weights that are stored in fp16 take half the room of fp32, in int8 a quarter (`embedkit.checkpoint.quantized`); both are computed
    with as fp32 again: loading rounds nothing. What a training run left beside the model stays behind.

    Returns the files that were converted.

    Raises:
        CheckpointError: there is nothing to convert, a file cannot be read safely, or a weight is too large for `dtype`.
    """
    source = Path(source)
    if not source.is_dir():
        raise CheckpointError(missing_model(str(source)))
    if has_adapter(source) or task is not None:
        if dtype not in (None, torch.float32):
            raise CheckpointError(
                f"{source}: an adapter is merged in fp32. Convert it without a number format first, and then what it became"
            )
        if task is not None:
            merge_task(source, target, task)
            return [WEIGHTS]
        merge_adapter(source, target)
        return [FILE]
    files = [path for path in sorted(source.rglob("*")) if path.relative_to(source).parts[0] != RUN_FOLDER]
    pickled = [path for path in files if path.match(PICKLED) and not path.with_name(WEIGHTS).exists()]
    cast = [] if dtype is None else [path for path in files if path.suffix == ".safetensors"]
    if not pickled and not cast:
        raise CheckpointError(
            f"{source}: no pytorch_model.bin in it without a {WEIGHTS} beside it; there is nothing to convert. "
            f"Look at it with: embedkit model info {source}"
        )
    with new_folder(target) as folder:
        for path in files:
            copy = folder / path.relative_to(source)
            if path.is_dir():
                copy.mkdir()
            elif path in cast:
                save_tensors(_as(read_tensors([path]), dtype, path), copy)
            elif path.name == "config.json" and dtype is not None:
                write_json(copy, _described(read_json(path, {}), dtype))
            elif path.suffix in KEPT and "bin.index" not in path.name:
                shutil.copyfile(path, copy)
        for part in sorted({path.parent for path in pickled}):
            shards = [read_pickled(path) for path in pickled if path.parent == part]
            tensors = {name: tensor for shard in shards for name, tensor in shard.items()}
            save_tensors(_as(tensors, dtype, part), folder / part.relative_to(source) / WEIGHTS)
    return [str(path.relative_to(source)) for path in [*pickled, *cast]]


def _described(config: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:  # Any: whatever JSON holds
    """Say in config.json that matrices are 8-bit integers, so that loaders that cannot read them refuse; or say it no more."""
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    of_weights = "model_type" in config or "architectures" in config  # and not of a layer beside them
    return plain | {"quantization_config": QUANTIZATION} if dtype == torch.int8 and of_weights else plain


def _as(tensors: dict[str, Tensor], dtype: torch.dtype | None, where: Path) -> dict[str, Tensor]:
    if dtype is None:
        return tensors
    if dtype == torch.int8:
        return _in_8_bits(tensors, where)
    result = {}
    for name, tensor in tensors.items():
        result[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        if tensor.is_floating_point() and not torch.isfinite(result[name]).all():
            raise CheckpointError(
                f"{where}: weight {name!r} reaches {tensor.abs().max():g}, more than {dtype} can hold, or is not finite. "
                "Store it as bf16, or leave it as it is"
            )
    return result


def _in_8_bits(tensors: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Store large matrices as integers with scales, and all else in fp32."""
    result = {}
    for name, tensor in _as(tensors, torch.float32, where).items():
        result[name] = tensor
        if tensor.is_floating_point() and tensor.ndim == 2 and tensor.numel() >= FEWEST:
            codes, scales = quantize(tensor.numpy())
            result[name] = torch.from_numpy(codes)
            result[name + ROW_SCALE] = torch.from_numpy(scales.row)
            result[name + COLUMN_SCALE] = torch.from_numpy(scales.column)
    return result
