"""The tensors of a model folder: read into modules strictly, written from them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from embedkit.checkpoint.folder import PICKLED, WEIGHTS, ModelFolder, new_folder, weight_files
from embedkit.checkpoint.hf_config import write_config
from embedkit.checkpoint.names import (
    BASE_PREFIX,
    IGNORED_PREFIXES,
    IGNORED_SUFFIXES,
    Family,
    Names,
    encoder_names,
)
from embedkit.checkpoint.st_modules import SentenceModules, write_json, write_modules
from embedkit.errors import CheckpointError
from embedkit.model.config import DenseConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.tokenization.tokenizer import Tokenizer


def load_sentence_encoder(folder: ModelFolder) -> SentenceEncoder:
    """Build the model of a folder with its weights, in fp32, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: weights are missing, unexpected, mis-shaped, or the file is damaged; or the model is a static one.
    """
    if folder.static:
        raise CheckpointError(
            f"{folder.path}: this is a static model, a table of token vectors without layers. Take a transformer here"
        )
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        model = SentenceEncoder(TransformerEncoder(folder.config), folder.modules.sentence)
    where = folder.encoder_path
    tensors = strip_base_prefix(read_tensors(weight_files(where)), folder.family)
    assign(model.encoder, encoder_names(folder.family, folder.config), tensors, where)
    left = unexpected(tensors, folder.family)
    if left:
        raise CheckpointError(
            f"{where}: {len(left)} weights that a {folder.family} encoder has no place for: {_some(left)}. "
            "Is config.json of the same model?"
        )
    for number, name in enumerate(folder.modules.dense_folders):
        part = read_tensors(weight_files(folder.path / name))
        assign(
            model.dense[number], _dense_names(folder.modules.sentence.dense[number]), part, folder.path / name
        )
        if part:
            raise CheckpointError(
                f"{folder.path / name}: weights that a dense layer has no place for: {_some(part)}"
            )
    return model.eval()


def read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """Read all tensors of some safetensors files, memory-mapped.

    Raises:
        CheckpointError: a file is cut short or is not safetensors.
    """
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (it is no dict)
                    tensors[name] = file.get_tensor(name)
        except (SafetensorError, OSError) as exc:
            raise CheckpointError(
                f"{path}: cannot be read as safetensors ({exc}). The file is cut short or damaged; copy it again"
            ) from exc
    return tensors


def strip_base_prefix(tensors: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Name the encoder's weights as if it had been saved alone, and old norm weights as they are named today."""
    prefix = BASE_PREFIX[family]
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = name.removeprefix(prefix)
        new = new.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        renamed[new] = tensor
    return renamed


def assign(module: nn.Module, names: Names, tensors: dict[str, Tensor], where: Path) -> None:
    """Give a module its weights, taking them out of `tensors`; what is stored in half precision becomes fp32.

    Raises:
        CheckpointError: a weight is missing or has another shape than the module's.
    """
    state: dict[str, Tensor] = {}
    missing = [theirs for parts in names.values() for theirs in parts if theirs not in tensors]
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} of {sum(map(len, names.values()))} weights are missing: {_some(missing)}. "
            "Copy the weights again from where the model came from"
        )
    for ours, own in module.state_dict().items():
        parts = [tensors.pop(theirs) for theirs in names[ours]]
        wanted = (own.shape[0] // len(parts), *own.shape[1:])
        for theirs, part in zip(names[ours], parts, strict=True):
            if part.shape != wanted:
                raise CheckpointError(
                    f"{where}: weight {theirs!r} has shape {tuple(part.shape)}; config.json asks for {wanted}. "
                    "Take both from the same model"
                )
            if not part.is_floating_point():
                raise CheckpointError(
                    f"{where}: weight {theirs!r} is {part.dtype}; it must be floating point. "
                    "Take the weights as they were before quantization"
                )
        state[ours] = (parts[0] if len(parts) == 1 else torch.cat(parts)).float()
    trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    module.load_state_dict(state, strict=True, assign=True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trained[name])


def unexpected(tensors: Mapping[str, Tensor], family: Family) -> list[str]:
    """Name the weights that are neither used nor known to be superfluous."""
    ignored = IGNORED_PREFIXES[family]
    return [name for name in tensors if not name.startswith(ignored) and not name.endswith(IGNORED_SUFFIXES)]


def _dense_names(dense: DenseConfig) -> Names:
    kinds = ("weight", "bias") if dense.bias else ("weight",)
    return {f"0.{kind}": (f"linear.{kind}",) for kind in kinds}


def _some(names: Sequence[str] | Mapping[str, Any]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    return ", ".join(listed[:4]) + more


def export_tensors(module: nn.Module, names: Names, *, prefix: str = "") -> dict[str, Tensor]:
    """Return a module's weights under the family's names, fp32, on the CPU, contiguous."""
    tensors: dict[str, Tensor] = {}
    for ours, tensor in module.state_dict().items():
        parts = tensor.detach().float().cpu().chunk(len(names[ours]))
        for theirs, part in zip(names[ours], parts, strict=True):
            tensors[prefix + theirs] = part.contiguous().clone()
    return tensors


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})  # transformers asks for this line
    except SafetensorError as exc:
        raise OSError(str(exc)) from exc


def save_sentence_encoder(
    target: str | Path,
    model: SentenceEncoder,
    tokenizer: Tokenizer,
    modules: SentenceModules,
    *,
    family: Family,
    card: str | None = None,
) -> None:
    """Write a sentence-transformers folder; `card` becomes its README.md.

    Raises:
        OutputError: the target exists, or cannot be written.
    """
    config = model.encoder.config
    with new_folder(target) as folder:
        write_json(folder / "config.json", write_config(config, family))
        save_tensors(export_tensors(model.encoder, encoder_names(family, config)), folder / WEIGHTS)
        write_modules(folder, modules, config.hidden_size)
        for number, (dense, shape) in enumerate(zip(model.dense, model.config.dense, strict=True)):
            save_tensors(export_tensors(dense, _dense_names(shape)), folder / f"{number + 2}_Dense" / WEIGHTS)
        tokenizer.save(folder, token_types=config.type_vocab_size > 1)
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")


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


def convert_pickled(source: str | Path, target: str | Path) -> list[str]:
    """Copy a model folder with pickled weights, in one file or shards, turned into `model.safetensors`.

    Returns the files that were converted.

    Raises:
        CheckpointError: there is no such file in the folder, or one cannot be read safely.
    """
    source = Path(source)
    if not source.is_dir():
        raise CheckpointError(f"{source}: there is no such model folder; check the path")
    pickled = sorted(path for path in source.rglob(PICKLED) if not path.with_name(WEIGHTS).exists())
    if not pickled:
        raise CheckpointError(
            f"{source}: no pytorch_model.bin in it without a {WEIGHTS} beside it; there is nothing to convert. "
            f"Look at it with: embedkit model info {source}"
        )
    with new_folder(target) as folder:
        for path in sorted(source.rglob("*")):
            copy = folder / path.relative_to(source)
            if path.is_dir():
                copy.mkdir()
            elif (
                path.suffix in (".json", ".txt", ".md", ".model", ".safetensors")
                and "bin.index" not in path.name
            ):
                shutil.copyfile(path, copy)
        for part in sorted({path.parent for path in pickled}):
            shards = [read_pickled(path) for path in pickled if path.parent == part]
            tensors = {name: tensor for shard in shards for name, tensor in shard.items()}
            save_tensors(tensors, folder / part.relative_to(source) / WEIGHTS)
    return [str(path.relative_to(source)) for path in pickled]
