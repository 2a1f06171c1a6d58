"""The tensors of a model folder: read into modules strictly, written from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from embedkit.checkpoint.folder import WEIGHTS, ModelFolder, weight_files
from embedkit.checkpoint.hf_config import write_config
from embedkit.checkpoint.json_files import write_json
from embedkit.checkpoint.names import Family, Names, dense_names, encoder_names, own_names
from embedkit.checkpoint.quantized import Scales, take_scales
from embedkit.checkpoint.st_modules import (
    SentenceModules,
    layer_folders,
    part_folders,
    write_modules,
)
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
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        model = SentenceEncoder(TransformerEncoder(folder.config), folder.modules.sentence)
    where = folder.encoder_path
    tensors = strip_base_prefix(read_tensors(weight_files(where, model=folder.path)), folder.family)
    assign(model.encoder, encoder_names(folder.family, folder.config), tensors, where)
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


def assign(module: nn.Module, names: Names, tensors: dict[str, Tensor], where: Path) -> None:
    """Give a module its weights, taking them out of `tensors`; what is stored in half precision becomes fp32.

    Raises:
        CheckpointError: a weight is missing or has another shape than the module's.
    """
    shapes = {ours: tuple(own.shape) for ours, own in module.state_dict().items()}
    state = {
        ours: (parts[0] if len(parts) == 1 else torch.cat(parts)).float()
        for ours, parts in take(names, shapes, tensors, where).items()
    }
    trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    module.load_state_dict(state, strict=True, assign=True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trained[name])


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
        save_tensors(export_tensors(model.encoder, encoder_names(family, config)), folder / WEIGHTS)
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
