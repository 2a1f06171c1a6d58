"""The files that sentence-transformers lays around an encoder: modules, pooling, dense layers, prompts.

Classes that a file names are compared with a short list; none is ever imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from embedkit.errors import CheckpointError
from embedkit.model.config import DenseActivation, DenseConfig, PoolingMode, SentenceConfig

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]

# our mode -> the flag of the older spelling, the name in the newer
_POOLING: dict[PoolingMode, tuple[str, str]] = {
    "cls": ("pooling_mode_cls_token", "cls"),
    "max": ("pooling_mode_max_tokens", "max"),
    "mean": ("pooling_mode_mean_tokens", "mean"),
    "mean_sqrt_len": ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    "weighted_mean": ("pooling_mode_weightedmean_tokens", "weightedmean"),
    "last": ("pooling_mode_lasttoken", "lasttoken"),
}
_ACTIVATION_CLASSES: dict[DenseActivation, str] = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "silu": "torch.nn.modules.activation.SiLU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
}
_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
# Written in the older spelling, the only one that every consumer reads.
_CLASS_PREFIX = "sentence_transformers.models."


@dataclass(frozen=True, kw_only=True)
class SentenceModules:
    """What a folder says beyond the encoder itself."""

    sentence: SentenceConfig = field(default_factory=SentenceConfig)
    encoder_folder: str = ""
    dense_folders: tuple[str, ...] = ()
    max_seq_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: Similarity = "cosine"


def read_modules(folder: Path) -> SentenceModules:
    """Read a sentence-transformers folder; a plain encoder folder gets mean pooling, as sentence-transformers does.

    Raises:
        CheckpointError: a file is missing or unreadable, or names a module that we do not compute.
    """
    modules = read_json(folder / "modules.json", [])
    if not isinstance(modules, list):
        raise CheckpointError(
            f"{folder / 'modules.json'}: a {type(modules).__name__}; it must be a list of modules"
        )
    found: dict[str, Any] = {"pooling": ("mean",), "dense": (), "normalize": False, "pool_prompt": True}
    encoder_folder, dense_folders = "", []
    for position, module in enumerate(modules):
        kind = _module_kind(module, folder)
        path = _inside(folder, module.get("path", ""))
        if (kind == "Transformer") != (position == 0) or (kind == "Pooling") != (position == 1):
            raise CheckpointError(
                f"{folder / 'modules.json'}: module {position} is {kind}; wanted Transformer, Pooling, then Dense or Normalize"
            )
        if kind == "Transformer":
            encoder_folder = module.get("path", "")
        elif kind == "Pooling":
            found["pooling"], found["pool_prompt"] = _read_pooling(path / "config.json")
        elif kind == "Dense":
            if found["normalize"]:
                raise CheckpointError(
                    f"{folder / 'modules.json'}: Dense stands after Normalize; only before is computed"
                )
            found["dense"] += (_read_dense(path / "config.json"),)
            dense_folders.append(module["path"])
        else:
            found["normalize"] = True
    if len(modules) == 1:
        raise CheckpointError(f"{folder / 'modules.json'}: one module only; wanted Transformer, then Pooling")
    settings = read_json(folder / encoder_folder / "sentence_bert_config.json", {})
    _check_task(settings, folder / encoder_folder / "sentence_bert_config.json")
    texts = read_json(folder / "config_sentence_transformers.json", {})
    return SentenceModules(
        sentence=SentenceConfig(**found),
        encoder_folder=encoder_folder,
        dense_folders=tuple(dense_folders),
        max_seq_length=settings.get("max_seq_length"),
        lowercase=bool(settings.get("do_lower_case", False)),
        prompts=dict(texts.get("prompts") or {}),
        default_prompt_name=texts.get("default_prompt_name"),
        similarity=texts.get("similarity_fn_name") or "cosine",
    )


def write_modules(folder: Path, modules: SentenceModules, hidden_size: int) -> None:
    """Write everything but the encoder and the weights of the dense layers, whose folders are made."""
    sentence = modules.sentence
    kinds = ["Transformer", "Pooling", *["Dense"] * len(sentence.dense), *["Normalize"] * sentence.normalize]
    rows = [
        {"idx": i, "name": str(i), "path": "" if i == 0 else f"{i}_{kind}", "type": _CLASS_PREFIX + kind}
        for i, kind in enumerate(kinds)
    ]
    for row in rows[1:]:
        (folder / str(row["path"])).mkdir()
    write_json(folder / "modules.json", rows)
    pooling: dict[str, Any] = {
        "word_embedding_dimension": hidden_size,
        "include_prompt": sentence.pool_prompt,
    }
    if [mode for mode in _POOLING if mode in sentence.pooling] == list(sentence.pooling):
        pooling |= {flag: mode in sentence.pooling for mode, (flag, _) in _POOLING.items()}
    else:  # flags have no order: only the newer spelling can say it
        pooling["pooling_mode"] = [_POOLING[mode][1] for mode in sentence.pooling]
    write_json(folder / "1_Pooling" / "config.json", pooling)
    for i, dense in enumerate(sentence.dense, 2):
        content = {"in_features": dense.in_features, "out_features": dense.out_features, "bias": dense.bias}
        content["activation_function"] = _ACTIVATION_CLASSES[dense.activation]  # type: ignore[assignment] # JSON
        write_json(folder / f"{i}_Dense" / "config.json", content)
    if sentence.normalize:
        write_json(folder / str(rows[-1]["path"]) / "config.json", {})
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": modules.max_seq_length, "do_lower_case": modules.lowercase},
    )
    texts = {
        "prompts": dict(modules.prompts),
        "default_prompt_name": modules.default_prompt_name,
        "similarity_fn_name": modules.similarity,
    }
    write_json(folder / "config_sentence_transformers.json", texts)


def _module_kind(module: Any, folder: Path) -> str:  # Any: whatever JSON holds
    name = module.get("type") if isinstance(module, dict) else None
    kind = name.rpartition(".")[2] if isinstance(name, str) else ""
    if not isinstance(name, str) or not name.startswith("sentence_transformers.") or kind not in _MODULES:
        raise CheckpointError(
            f"{folder / 'modules.json'}: module type {name!r} is not one that embedkit computes "
            f"(sentence_transformers' {', '.join(_MODULES)}); code that a model brings along is never run"
        )
    return kind


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise CheckpointError(f"{folder / 'modules.json'}: the path {name!r} leads out of the model's folder")
    return path


def _read_pooling(path: Path) -> tuple[tuple[PoolingMode, ...], bool]:
    content = read_json(path, None)
    if "pooling_mode" in content:
        named = content["pooling_mode"]
        wanted = [named] if isinstance(named, str) else list(named)
        known = {name: mode for mode, (_, name) in _POOLING.items()}
        modes = [known.get(name) for name in wanted]
    else:
        wanted = [key for key, value in content.items() if key.startswith("pooling_mode_") and value]
        known = {flag: mode for mode, (flag, _) in _POOLING.items()}
        # sentence-transformers concatenates in the order of its own list, not of the file
        modes = sorted(
            (known.get(flag) for flag in wanted), key=lambda mode: list(_POOLING).index(mode) if mode else -1
        )
    if not modes or None in modes:
        raise CheckpointError(f"{path}: pooling is {wanted}; known are {', '.join(known)}")
    return tuple(mode for mode in modes if mode is not None), bool(content.get("include_prompt", True))


def _read_dense(path: Path) -> DenseConfig:
    content = read_json(path, None)
    kind = str(content.get("activation_function", _ACTIVATION_CLASSES["tanh"])).rpartition(".")[2]
    known = {name.rpartition(".")[2]: activation for activation, name in _ACTIVATION_CLASSES.items()}
    if kind not in known:
        raise CheckpointError(f"{path}: activation_function is {kind!r}; known are {', '.join(known)}")
    if content.get("use_residual"):
        raise CheckpointError(f"{path}: use_residual is true; a dense layer with a residual is not computed")
    try:
        return DenseConfig(
            in_features=int(content["in_features"]),
            out_features=int(content["out_features"]),
            bias=bool(content.get("bias", True)),
            activation=known[kind],
        )
    except KeyError as exc:
        raise CheckpointError(f"{path}: missing key {exc}; keys here: {', '.join(content)}") from exc


def _check_task(settings: Mapping[str, Any], path: Path) -> None:
    task = settings.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise CheckpointError(
            f"{path}: transformer_task is {task!r}; a sentence encoder has 'feature-extraction'. Is this a reranker?"
        )


def read_json(path: Path, default: Any) -> Any:  # Any: whatever JSON holds
    """Read a JSON file; `default` None means that it must be there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        if default is None:
            raise CheckpointError(
                f"{path}: there is no such file. Copy it from where the model came from"
            ) from exc
        return default
    except (ValueError, OSError) as exc:
        raise CheckpointError(f"{path}: cannot be read as JSON ({exc}). Copy the file again") from exc


def write_json(path: Path, content: Any) -> None:  # Any: whatever JSON holds
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
