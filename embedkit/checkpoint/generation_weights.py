"""The tensors of a text generator's folder: read into the network strictly, written from it, matrices as int8 where asked for."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from embedkit.checkpoint.families.t5_decoder import COPIES, OUTPUT
from embedkit.checkpoint.folder import WEIGHTS, weight_files
from embedkit.checkpoint.generation import GeneratorFolder, Json, StoredAs, generator_config
from embedkit.checkpoint.json_files import write_json
from embedkit.checkpoint.names import Family
from embedkit.checkpoint.unfilled import unfilled
from embedkit.checkpoint.weight_checks import some
from embedkit.checkpoint.weights import assign, read_tensors, save_tensors
from embedkit.errors import CheckpointError
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.text_generator import TextGenerator
from embedkit.storage.files import new_folder
from embedkit.tokenization.tokenizer import Tokenizer

SCALE = ".scale"  # ends the name of an int8 matrix's scales


def load_generator(folder: GeneratorFolder) -> TextGenerator:
    """Build the model of a folder with its weights, in fp32, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: weights are missing, unexpected, mis-shaped, or the file is damaged.
    """
    try:
        with unfilled():
            encoder = None if folder.encoder is None else TransformerEncoder(folder.encoder)
            model = TextGenerator(encoder, folder.decoder)
    except ValueError as exc:
        raise CheckpointError(
            f"{folder.path / 'config.json'}: {exc}. Take the model's own config.json"
        ) from exc
    tensors = _from_int8(read_tensors(weight_files(folder.path)), folder.path)
    if folder.names is not None:
        for name in (*COPIES, *([OUTPUT] if folder.decoder.tie_word_embeddings else [])):
            tensors.pop(name, None)
    assign(model, folder.names or {name: (name,) for name in model.state_dict()}, tensors, folder.path)
    if tensors:
        raise CheckpointError(
            f"{folder.path}: {len(tensors)} weights that the generator has no place for: {some(tensors)}. "
            "Is config.json of the same model?"
        )
    return model.eval()


def save_generator(
    target: str | Path,
    model: TextGenerator,
    tokenizer: Tokenizer,
    *,
    family: Family | None,
    generation: Json | None = None,
    stored: StoredAs = "fp32",
) -> None:
    """Write a new folder.

    Raises:
        OutputError: the target exists, or cannot be written.
    """
    with new_folder(target) as folder:
        write_generator(folder, model, tokenizer, family=family, generation=generation, stored=stored)


def write_generator(
    folder: Path,
    model: TextGenerator,
    tokenizer: Tokenizer,
    *,
    family: Family | None,
    generation: Json | None = None,
    stored: StoredAs = "fp32",
) -> None:
    """Write the model's files into an existing folder."""
    encoder = None if model.encoder is None else model.encoder.config
    content = generator_config(encoder, model.config, family=family, generation=generation or {})
    write_json(folder / "config.json", content)
    weights = {name: weight.detach().float().cpu() for name, weight in model.state_dict().items()}
    save_tensors(_as_stored(weights, stored), folder / WEIGHTS)
    tokenizer.save(folder, token_types=False)


def _as_stored(weights: dict[str, Tensor], stored: StoredAs) -> dict[str, Tensor]:
    """Return the weights in a number format; with int8 the vectors (norms and biases) stay fp32."""
    if stored != "int8":
        kind = torch.float32 if stored == "fp32" else torch.float16
        return {name: weight.to(kind).contiguous().clone() for name, weight in weights.items()}
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim != 2:
            found[name] = weight.contiguous().clone()
            continue
        # Symmetric, a scale for each row: what is multiplied with a row stays apart from the others.
        scale = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        found[name] = (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        found[name + SCALE] = scale
    return found


def _from_int8(tensors: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
    scales = {name: tensors.pop(name) for name in list(tensors) if name.endswith(SCALE)}
    for name, scale in scales.items():
        own = name.removesuffix(SCALE)
        matrix = tensors.get(own)
        if matrix is None or matrix.dtype != torch.int8 or scale.shape != matrix.shape[:1]:
            raise CheckpointError(
                f"{where}: {name!r} has shape {tuple(scale.shape)}; {own!r} must be an int8 matrix of as many rows. "
                "Copy the weights again from where the model came from"
            )
        tensors[own] = matrix.float() * scale.float()[:, None]
    return tensors
