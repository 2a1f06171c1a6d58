"""The list of modules that sentence-transformers lays around an encoder, read and written: what follows on the encoder, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedkit.checkpoint.families.jina import is_hub_jina
from embedkit.checkpoint.json_files import json_field, read_json, write_json
from embedkit.checkpoint.st_learned import learned_content, read_learned
from embedkit.checkpoint.st_parts import (
    check_names,
    layer_content,
    pooling_content,
    read_layer,
    read_pooling,
)
from embedkit.checkpoint.st_router import read_module_list
from embedkit.checkpoint.st_settings import Similarity, read_limits, read_texts
from embedkit.errors import CheckpointError
from embedkit.model.config import DenseConfig, EncoderConfig, HeadLayer, SentenceConfig
from embedkit.types import TextRole

_MODULES = ("Transformer", "WeightedLayerPooling", "Pooling", "Dense", "LayerNorm", "Dropout", "Normalize")
# Written in the older spelling, the only one that every consumer reads.
_CLASS_PREFIX = "sentence_transformers.models."
# Modules of sentence-transformers' that are refused by their names, and what they are.
_NOT_COMPUTED = {
    "LSTM": "a recurrent network over token vectors",
    "CNN": "convolutions over token vectors",
    "BoW": "a bag of words, one number for each of the vocabulary",
    "WordWeights": "weights of words, such as inverse document frequencies",
    "CLIPModel": "texts and images",
    "MLMTransformer": "a learned sparse model",
    "SpladePooling": "a learned sparse model",
    "SparseAutoEncoder": "a learned sparse model",
    "SparseStaticEmbedding": "a learned sparse model",
    "MultiVectorMask": "a multi-vector model",
    "TokenPooling": "a multi-vector model",
    "LogitScore": "a reranker that answers yes or no: embedkit rerank",
    "Router": "within another, or not the first",
}
_POOLINGS = ("Pooling", "AttentionPooling")
_AFTER = ("Dense", "LayerNorm", "Dropout", "Normalize", "Similarity")
# What only we compute: sentence-transformers finds no such class and stops.
_OWN_MODULES = ("AttentionPooling", "Similarity")
_OWN_PREFIX = "embedkit."
# The module of each part of a `SentenceEncoder` that has weights of its own.
_PART_MODULES = {
    "layer_mean": "WeightedLayerPooling",
    "attention_pooling": "AttentionPooling",
    "similarity": "Similarity",
}


@dataclass(frozen=True, kw_only=True)
class SentenceModules:
    """What a folder says beyond the encoder itself.

    `dense_folders` hold the weights of `sentence.dense`, `parts` those of the other parts that `sentence_shapes` names. `truncate_dim` is
    how many dimensions of a vector are kept; None: all.
    """

    sentence: SentenceConfig = field(default_factory=SentenceConfig)
    encoder_folder: str = ""
    dense_folders: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    max_seq_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: Similarity = "cosine"
    truncate_dim: int | None = None


def read_modules(folder: Path, role: TextRole | None = None) -> SentenceModules:
    """Read a sentence-transformers folder; a plain encoder folder gets mean pooling, as sentence-transformers does.

    Dropout modules do nothing to vectors and are passed over. `role` says whose modules of a router's folder are read.

    Raises:
        CheckpointError: a file is missing or unreadable, or names a module or a setting that we do not compute.
    """
    where = folder / "modules.json"
    modules = read_module_list(folder, role)
    if not modules:
        return SentenceModules()
    encoder_folder, layers, dense_folders = "", list[HeadLayer](), list[str]()
    parts: dict[str, str] = {}
    found: dict[str, Any] = {"normalize": False}
    kinds = [module_kind(module, folder) for module in modules]
    names = [module_path(module, folder) for module in modules]
    _check_order(kinds, where)
    for kind, name in zip(kinds, names, strict=True):
        config = folder / name / "config.json"
        if kind == "Transformer":
            encoder_folder = name
        elif kind == "Pooling":
            found["pooling"], found["pool_prompt"] = read_pooling(config)
        elif kind in _PART_MODULES.values():
            found |= read_learned(kind, config)
            parts |= {part: name for part, its in _PART_MODULES.items() if its == kind}
        elif kind == "Normalize":
            check_names(read_json(config, {}), config)
            found["normalize"] = True
        elif kind != "Dropout":
            layers.append(read_layer(kind, config))
            dense_folders.append(name)
    texts = read_texts(folder / "config_sentence_transformers.json")
    max_seq_length, lowercase = read_limits(folder / encoder_folder)
    try:
        sentence = SentenceConfig(dense=tuple(layers), **found)
    except ValueError as exc:
        raise CheckpointError(f"{where}: {exc}. Take all modules from the same model") from exc
    return SentenceModules(
        sentence=sentence,
        encoder_folder=encoder_folder,
        dense_folders=tuple(dense_folders),
        parts=parts,
        max_seq_length=max_seq_length,
        lowercase=lowercase,
        **texts,
    )


def _check_order(kinds: list[str], where: Path) -> None:
    """Refuse modules that do not stand in the one order that is computed.

    Raises:
        CheckpointError: they do not.
    """
    mixing = kinds[1:2] == ["WeightedLayerPooling"]
    for position, kind in enumerate(kinds):
        wanted = ("Transformer",) if position == 0 else _POOLINGS if position == 1 + mixing else _AFTER
        if (position, kind) != (1, "WeightedLayerPooling") and kind not in wanted:
            raise CheckpointError(
                f"{where}: module {position} is {kind}; wanted Transformer, Pooling, then Dense, LayerNorm or Normalize"
            )
        if kind in ("Dense", "LayerNorm") and "Normalize" in kinds[:position]:
            raise CheckpointError(f"{where}: {kind} stands after Normalize; only before is computed")
        if "Similarity" in kinds[:position]:
            raise CheckpointError(f"{where}: {kind} stands after Similarity, which must be the last")
    if len(kinds) == 1 + mixing:
        raise CheckpointError(f"{where}: one module only; wanted Transformer, then Pooling")


def _names(sentence: SentenceConfig) -> list[str]:
    """Return the names of the modules in their order, which are their folders too."""
    kinds = ["Transformer"]
    kinds += ["WeightedLayerPooling"] * (sentence.layer_start is not None)
    kinds += ["Pooling" if sentence.attention is None else "AttentionPooling"]
    kinds += ["Dense" if isinstance(layer, DenseConfig) else "LayerNorm" for layer in sentence.dense]
    kinds += ["Normalize"] * sentence.normalize
    kinds += ["Similarity"] * (sentence.similarity is not None)
    return [f"{number}_{kind}" for number, kind in enumerate(kinds)]


def _of_kind(sentence: SentenceConfig, *kinds: str) -> list[str]:
    return [name for name in _names(sentence) if name.partition("_")[2] in kinds]


def layer_folders(sentence: SentenceConfig) -> list[str]:
    """Return the folders that the weights of the layers after the pooling are written to."""
    return _of_kind(sentence, "Dense", "LayerNorm")


def part_folders(sentence: SentenceConfig) -> dict[str, str]:
    """Return the folders that the weights of the other parts are written to, by their names in `sentence_shapes`."""
    return {part: name for part, kind in _PART_MODULES.items() for name in _of_kind(sentence, kind)}


def write_modules(folder: Path, modules: SentenceModules, config: EncoderConfig) -> None:
    """Write everything but the encoder and the weights of what stands on it, whose folders are made."""
    sentence = modules.sentence
    write_module_list(folder, _names(sentence))
    for name in _of_kind(sentence, "Pooling"):
        write_json(folder / name / "config.json", pooling_content(sentence, config.hidden_size))
    for part, name in part_folders(sentence).items():
        write_json(folder / name / "config.json", learned_content(part, sentence, config))
    for name, layer in zip(layer_folders(sentence), sentence.dense, strict=True):
        write_json(folder / name / "config.json", layer_content(layer))
    limits = {"max_seq_length": modules.max_seq_length, "do_lower_case": modules.lowercase}
    write_json(folder / "sentence_bert_config.json", limits)
    write_texts(folder, modules)


def write_texts(folder: Path, modules: SentenceModules) -> None:
    """Write `config_sentence_transformers.json`."""
    write_json(folder / "config_sentence_transformers.json", texts_content(modules))


def texts_content(modules: SentenceModules) -> dict[str, Any]:  # Any: whatever JSON holds
    """Return what `read_texts` reads."""
    content: dict[str, Any] = {
        "prompts": dict(modules.prompts),
        "default_prompt_name": modules.default_prompt_name,
        "similarity_fn_name": modules.similarity,
    }
    if modules.truncate_dim is not None:
        content["truncate_dim"] = modules.truncate_dim
    return content


def write_module_list(folder: Path, names: list[str]) -> None:
    """Write `modules.json` of modules named as `1_Pooling`, and make their folders; the first lies in the model's own."""
    rows = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else name,
            "type": _class_of(name.partition("_")[2]),
        }
        for i, name in enumerate(names)
    ]
    write_json(folder / "modules.json", rows)
    for name in names[1:]:
        (folder / name).mkdir()
        if name.endswith("_Normalize"):
            write_json(folder / name / "config.json", {})


def _class_of(kind: str) -> str:
    return (_OWN_PREFIX if kind in _OWN_MODULES else _CLASS_PREFIX) + kind


def module_kind(module: Any, folder: Path) -> str:  # Any: whatever JSON holds
    """Return the last part of a module's class.

    Raises:
        CheckpointError: it is not one that we compute.
    """
    name = module.get("type") if isinstance(module, dict) else None
    kind = name.rpartition(".")[2] if isinstance(name, str) else ""
    theirs = isinstance(name, str) and name.startswith("sentence_transformers.") and kind in _MODULES
    if name == "custom_st.Transformer" and _of_jina(module, folder):
        return kind
    ours = kind in _OWN_MODULES and name == _class_of(kind)
    if kind in _NOT_COMPUTED and isinstance(name, str) and name.startswith("sentence_transformers."):
        raise CheckpointError(
            f"{folder / 'modules.json'}: module type {name!r} is not one that embedkit computes here: {_NOT_COMPUTED[kind]}. "
            "Choose a model without"
        )
    if not theirs and not ours:
        raise CheckpointError(
            f"{folder / 'modules.json'}: module type {name!r} is not one that embedkit computes "
            f"(sentence_transformers' {', '.join(_MODULES)}); code that a model brings along is never run"
        )
    return kind


def _of_jina(module: Any, folder: Path) -> bool:  # Any: whatever JSON holds
    """Say whether a module of the folder's own code is known: Jina v3's, which is a Transformer that also takes a task."""
    return is_hub_jina(read_json(folder / module_path(module, folder) / "config.json", {}))


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
