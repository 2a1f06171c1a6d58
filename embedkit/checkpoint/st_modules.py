"""The list of modules that sentence-transformers lays around an encoder, read and written: what follows on the encoder, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedkit.checkpoint.json_files import json_field, read_json, write_json
from embedkit.checkpoint.st_parts import (
    check_names,
    layer_content,
    pooling_content,
    read_layer,
    read_pooling,
)
from embedkit.checkpoint.st_settings import Similarity, read_limits, read_texts
from embedkit.errors import CheckpointError
from embedkit.model.config import DenseConfig, HeadLayer, SentenceConfig

_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Dropout", "Normalize")
# Written in the older spelling, the only one that every consumer reads.
_CLASS_PREFIX = "sentence_transformers.models."


@dataclass(frozen=True, kw_only=True)
class SentenceModules:
    """What a folder says beyond the encoder itself.

    `dense_folders` hold the weights of `sentence.dense`. `truncate_dim` is how many dimensions of a vector are kept; None: all.
    """

    sentence: SentenceConfig = field(default_factory=SentenceConfig)
    encoder_folder: str = ""
    dense_folders: tuple[str, ...] = ()
    max_seq_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: Similarity = "cosine"
    truncate_dim: int | None = None


def read_modules(folder: Path) -> SentenceModules:
    """Read a sentence-transformers folder; a plain encoder folder gets mean pooling, as sentence-transformers does.

    Dropout modules do nothing to vectors and are passed over.

    Raises:
        CheckpointError: a file is missing or unreadable, or names a module or a setting that we do not compute.
    """
    where = folder / "modules.json"
    modules = read_json(where, [])
    if not modules:
        return SentenceModules()
    encoder_folder, layers, dense_folders = "", list[HeadLayer](), list[str]()
    found: dict[str, Any] = {"normalize": False}
    for position, module in enumerate(modules):
        kind = module_kind(module, folder)
        name = module_path(module, folder)
        if (kind == "Transformer") != (position == 0) or (kind == "Pooling") != (position == 1):
            raise CheckpointError(
                f"{where}: module {position} is {kind}; wanted Transformer, Pooling, then Dense, LayerNorm or Normalize"
            )
        config = folder / name / "config.json"
        if kind == "Transformer":
            encoder_folder = name
        elif kind == "Pooling":
            found["pooling"], found["pool_prompt"] = read_pooling(config)
        elif kind == "Normalize":
            check_names(read_json(config, {}), config)
            found["normalize"] = True
        elif kind != "Dropout":
            if found["normalize"]:
                raise CheckpointError(f"{where}: {kind} stands after Normalize; only before is computed")
            layers.append(read_layer(kind, config))
            dense_folders.append(name)
    if len(modules) == 1:
        raise CheckpointError(f"{where}: one module only; wanted Transformer, then Pooling")
    texts = read_texts(folder / "config_sentence_transformers.json")
    max_seq_length, lowercase = read_limits(folder / encoder_folder)
    return SentenceModules(
        sentence=SentenceConfig(dense=tuple(layers), **found),
        encoder_folder=encoder_folder,
        dense_folders=tuple(dense_folders),
        max_seq_length=max_seq_length,
        lowercase=lowercase,
        **texts,
    )


def layer_folder(number: int, layer: HeadLayer) -> str:
    """Return the folder that the weights of layer `number` after the pooling, counted from 0, are written to."""
    return f"{number + 2}_{'Dense' if isinstance(layer, DenseConfig) else 'LayerNorm'}"


def write_modules(folder: Path, modules: SentenceModules, hidden_size: int) -> None:
    """Write everything but the encoder and the weights of the layers after it, whose folders are made."""
    sentence = modules.sentence
    layers = [layer_folder(number, layer) for number, layer in enumerate(sentence.dense)]
    norm = [f"{len(layers) + 2}_Normalize"] * sentence.normalize
    write_module_list(folder, ["0_Transformer", "1_Pooling", *layers, *norm])
    write_json(folder / "1_Pooling" / "config.json", pooling_content(sentence, hidden_size))
    for name, layer in zip(layers, sentence.dense, strict=True):
        write_json(folder / name / "config.json", layer_content(layer))
    limits = {"max_seq_length": modules.max_seq_length, "do_lower_case": modules.lowercase}
    write_json(folder / "sentence_bert_config.json", limits)
    write_texts(folder, modules)


def write_texts(folder: Path, modules: SentenceModules) -> None:
    """Write `config_sentence_transformers.json`."""
    content: dict[str, Any] = {
        "prompts": dict(modules.prompts),
        "default_prompt_name": modules.default_prompt_name,
        "similarity_fn_name": modules.similarity,
    }
    if modules.truncate_dim is not None:
        content["truncate_dim"] = modules.truncate_dim
    write_json(folder / "config_sentence_transformers.json", content)


def write_module_list(folder: Path, names: list[str]) -> None:
    """Write `modules.json` of modules named as `1_Pooling`, and make their folders; the first lies in the model's own."""
    rows = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else name,
            "type": _CLASS_PREFIX + name.partition("_")[2],
        }
        for i, name in enumerate(names)
    ]
    write_json(folder / "modules.json", rows)
    for name in names[1:]:
        (folder / name).mkdir()
        if name.endswith("_Normalize"):
            write_json(folder / name / "config.json", {})


def module_kind(module: Any, folder: Path) -> str:  # Any: whatever JSON holds
    """Return the last part of a module's class.

    Raises:
        CheckpointError: it is not one that we compute.
    """
    name = module.get("type") if isinstance(module, dict) else None
    kind = name.rpartition(".")[2] if isinstance(name, str) else ""
    if not isinstance(name, str) or not name.startswith("sentence_transformers.") or kind not in _MODULES:
        raise CheckpointError(
            f"{folder / 'modules.json'}: module type {name!r} is not one that embedkit computes "
            f"(sentence_transformers' {', '.join(_MODULES)}); code that a model brings along is never run"
        )
    return kind


def module_path(module: Any, folder: Path) -> str:  # Any: whatever JSON holds
    """Return the folder of a module within the model's.

    Raises:
        CheckpointError: it leads out of the model's folder.
    """
    where = folder / "modules.json"
    name = json_field(module, "path", "", str(where))
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"{where}: the path {name!r} leads out of the model's folder")
    return name
