"""The tensors of a model folder: read into modules strictly, written from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from embedkit.checkpoint.adapters import Adapter, changes
from embedkit.checkpoint.families.row import Names
from embedkit.checkpoint.folder import WEIGHTS, ModelFolder, check_one_model, weight_files
from embedkit.checkpoint.hf_config import write_config
from embedkit.checkpoint.json_files import write_json
from embedkit.checkpoint.names import Family, dense_names, encoder_names, own_names, transposed
from embedkit.checkpoint.quantized import Scales, take_scales
from embedkit.checkpoint.st_modules import (
    SentenceModules,
    layer_folders,
    part_folders,
    write_modules,
)
from embedkit.checkpoint.stored_arrays import read_arrays
from embedkit.checkpoint.task_adapters import TaskAdapters, merged_tasks
from embedkit.checkpoint.unfilled import unfilled
from embedkit.checkpoint.weight_checks import (
    check_dense_empty,
    check_nothing_left,
    damaged,
    strip_base_prefix,
    take,
)
from embedkit.errors import CheckpointError
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.shapes import encoder_splits
from embedkit.storage.files import new_folder
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
    check_one_model(folder, "training or converting")
    with unfilled():
        model = SentenceEncoder(TransformerEncoder(folder.config), folder.modules.sentence)
    where = folder.encoder_path
    tensors = read_model_tensors(
        folder.weights_path, folder.adapter, folder.family, model=folder.path, tasks=folder.tasks
    )
    assign_encoder(model.encoder, folder.family, tensors, where)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in folder.beside}
    check_nothing_left(tensors, folder.family, where)
    for number, name in enumerate(folder.modules.dense_folders):
        part = read_tensors(weight_files(folder.path / name, model=folder.path))
        names = dense_names(folder.modules.sentence.dense[number])
        assign(model.dense[number], names, part, folder.path / name)
        check_dense_empty(part, folder.path / name)
    for part_name, name in folder.modules.parts.items():
        module = model.get_submodule(part_name)
        stored = read_tensors(weight_files(folder.path / name, model=folder.path))
        assign(module, own_names(module.state_dict()), stored, folder.path / name)
        check_dense_empty(stored, folder.path / name)
    return model.eval()


def read_model_tensors(
    folder: Path,
    adapter: Adapter | None,
    family: Family,
    *,
    model: Path | None = None,
    tasks: TaskAdapters | None = None,
) -> dict[str, Tensor]:
    """Read the weights of an encoder's folder, with what an adapter or a task adds to them, named as if the encoder had been saved alone.

    Raises:
        CheckpointError: a file is missing or damaged, or the adapter is of another model.
    """
    files = weight_files(folder, model=model)
    if tasks is not None:
        merged = merged_tasks(read_arrays(files), tasks, folder)
        return strip_base_prefix({name: torch.from_numpy(a.fp32()) for name, a in merged.items()}, family)
    tensors = read_tensors(files)
    if adapter is not None:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for name, (array, whole) in changes(adapter, shapes).items():
            change = torch.from_numpy(array)
            tensors[name] = change if whole else tensors[name].float() + change
    return strip_base_prefix(tensors, family)


def read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """Read all tensors of some safetensors files, memory-mapped; integers with scales as the fp32 they stand for.

    Raises:
        CheckpointError: a file is cut short or is not safetensors, or integers lack their scales.
    """
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (it is no dict)
                    tensors[name] = file.get_tensor(name)
        except (SafetensorError, OSError) as exc:
            raise damaged(path, exc) from exc
    for name, scales in take_scales(tensors, files[0].parent if files else Path()).items():
        row, column = (scale.numpy() for scale in scales)
        tensors[name] = torch.from_numpy(Scales(row, column).apply(tensors[name].numpy()))
    return tensors


def assign_encoder(
    encoder: TransformerEncoder, family: Family, tensors: dict[str, Tensor], where: Path
) -> None:
    """Give an encoder its weights, taking them out of `tensors`.

    Raises:
        CheckpointError: as `assign`.
    """
    config = encoder.config
    assign(encoder, encoder_names(family, config), tensors, where, splits=encoder_splits(config))


def assign(
    module: nn.Module,
    names: Names,
    tensors: dict[str, Tensor],
    where: Path,
    *,
    splits: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Give a module its weights, taking them out of `tensors`; what is stored in half precision becomes fp32.

    Raises:
        CheckpointError: a weight is missing or has another shape than the module's.
    """
    shapes = {ours: tuple(own.shape) for ours, own in module.state_dict().items()}
    state = {
        # Contiguous: what was stored turned is a view, which no checkpoint of a training run takes.
        ours: (parts[0] if len(parts) == 1 else torch.cat(parts)).float().contiguous()
        for ours, parts in take(names, shapes, tensors, where, splits=splits).items()
    }
    trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    module.load_state_dict(state, strict=True, assign=True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trained[name])


def export_encoder(encoder: TransformerEncoder, family: Family, *, prefix: str = "") -> dict[str, Tensor]:
    """Return an encoder's weights as its family stores them: `prefix` before every name, as a head beside it asks for."""
    names, turned = encoder_names(family, encoder.config), transposed(family)
    tensors = export_tensors(encoder, names, prefix=prefix, splits=encoder_splits(encoder.config))
    return {
        name: tensor.T.contiguous() if turned and name.endswith(turned) else tensor
        for name, tensor in tensors.items()
    }


def export_tensors(
    module: nn.Module,
    names: Names,
    *,
    prefix: str = "",
    splits: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, Tensor]:
    """Return a module's weights under the family's names, fp32, on the CPU, contiguous."""
    tensors: dict[str, Tensor] = {}
    for ours, tensor in module.state_dict().items():
        whole, theirs = tensor.detach().float().cpu(), names[ours]
        rows = (splits or {}).get(ours) or (len(whole) // len(theirs),) * len(theirs)
        parts = whole.split(list(rows)) if len(theirs) > 1 else (whole,)
        for name, part in zip(theirs, parts, strict=True):
            tensors[prefix + name] = part.contiguous().clone()
    return tensors


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    # As the umask has it: safetensors 0.8 leaves a file that its owner alone can read.
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(tensors, path, metadata={"format": "pt"})  # transformers asks for this line
        path.chmod(mode)
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
        content = write_config(config, family)
        if model.layer_mean is not None:  # sentence-transformers passes the module over without it
            content["output_hidden_states"] = True
        write_json(folder / "config.json", content)
        save_tensors(export_encoder(model.encoder, family), folder / WEIGHTS)
        write_modules(folder, modules, config)
        folders = layer_folders(model.config)
        for name, layer, shape in zip(folders, model.dense, model.config.dense, strict=True):
            save_tensors(export_tensors(layer, dense_names(shape)), folder / name / WEIGHTS)
        for part, name in part_folders(model.config).items():
            module = model.get_submodule(part)
            save_tensors(export_tensors(module, own_names(module.state_dict())), folder / name / WEIGHTS)
        tokenizer.save(folder, token_types=config.type_vocab_size > 1)
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")
