"""The files that sentence-transformers lays around an encoder: modules, pooling, dense layers, prompts.

Classes that a file names are compared with a short list; none is ever imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from embedkit.errors import CheckpointError
from embedkit.model.config import DenseActivation, DenseConfig, PoolingMode, SentenceConfig

T = TypeVar("T")
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
ACTIVATION_CLASSES: dict[DenseActivation, str] = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "silu": "torch.nn.modules.activation.SiLU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
}
_JSON_KINDS: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
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
    found: dict[str, Any] = {"pooling": ("mean",), "dense": (), "normalize": False, "pool_prompt": True}
    encoder_folder, dense_folders = "", []
    for position, module in enumerate(modules):
        kind = _module_kind(module, folder)
        name = json_field(module, "path", "", str(folder / "modules.json"))
        path = _inside(folder, name)
        if (kind == "Transformer") != (position == 0) or (kind == "Pooling") != (position == 1):
            raise CheckpointError(
                f"{folder / 'modules.json'}: module {position} is {kind}; wanted Transformer, Pooling, then Dense or Normalize"
            )
        if kind == "Transformer":
            encoder_folder = name
        elif kind == "Pooling":
            found["pooling"], found["pool_prompt"] = _read_pooling(path / "config.json")
        elif kind == "Dense":
            if found["normalize"]:
                raise CheckpointError(
                    f"{folder / 'modules.json'}: Dense stands after Normalize; only before is computed"
                )
            found["dense"] += (_read_dense(path / "config.json"),)
            dense_folders.append(name)
        else:
            found["normalize"] = True
    if len(modules) == 1:
        raise CheckpointError(f"{folder / 'modules.json'}: one module only; wanted Transformer, then Pooling")
    limits_path = _settings_path(folder / encoder_folder)
    limits = read_json(limits_path, {})
    _check_task(limits, limits_path)
    prompts, default_prompt_name, similarity = _read_texts(folder / "config_sentence_transformers.json")
    return SentenceModules(
        sentence=SentenceConfig(**found),
        encoder_folder=encoder_folder,
        dense_folders=tuple(dense_folders),
        max_seq_length=json_field(limits, "max_seq_length", 0, str(limits_path)) or None,
        lowercase=json_field(limits, "do_lower_case", False, str(limits_path)),
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        similarity=similarity,
    )


def _settings_path(encoder_folder: Path) -> Path:
    """Return the file with the encoder's limits, which older releases named after the encoder's family."""
    kinds = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta")
    paths = [encoder_folder / f"sentence_{kind}_config.json" for kind in kinds]
    return next((path for path in paths if path.is_file()), paths[0])


def _read_texts(path: Path) -> tuple[dict[str, str], str | None, Similarity]:
    """Return the prompts by name, the name of the default one, and the similarity."""
    content = read_json(path, {})
    prompts = json_field(content, "prompts", dict[str, Any](), str(path))
    prompts = {name: "" if prompt is None else prompt for name, prompt in prompts.items()}
    default = json_field(content, "default_prompt_name", "", str(path)) or None
    similarity = json_field(content, "similarity_fn_name", "cosine", str(path))
    if not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise CheckpointError(f"{path}: prompts is {prompts}; each must be a string. Correct the file")
    if default is not None and default not in prompts:
        raise CheckpointError(
            f"{path}: default_prompt_name is {default!r}; prompts has: {', '.join(prompts) or 'none'}. Correct the file"
        )
    if similarity not in get_args(Similarity):
        raise CheckpointError(
            f"{path}: similarity_fn_name is {similarity!r}; known are {', '.join(get_args(Similarity))}"
        )
    return prompts, default, cast("Similarity", similarity)


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
        content["activation_function"] = ACTIVATION_CLASSES[dense.activation]  # type: ignore[assignment] # JSON
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
        wanted = named if isinstance(named, list) else [named]
        known = {name: mode for mode, (_, name) in _POOLING.items()}
        modes = [known.get(str(name)) for name in wanted]
    else:
        wanted = [key for key, value in content.items() if key.startswith("pooling_mode_") and value]
        known = {flag: mode for mode, (flag, _) in _POOLING.items()}
        # sentence-transformers concatenates in the order of its own list, not of the file
        modes = sorted(
            (known.get(flag) for flag in wanted), key=lambda mode: list(_POOLING).index(mode) if mode else -1
        )
    if not modes or None in modes:
        raise CheckpointError(f"{path}: pooling is {wanted}; known are {', '.join(known)}")
    pool_prompt = json_field(content, "include_prompt", True, str(path))
    return tuple(mode for mode in modes if mode is not None), pool_prompt


def _read_dense(path: Path) -> DenseConfig:
    content = read_json(path, None)
    kind = str(content.get("activation_function", ACTIVATION_CLASSES["tanh"])).rpartition(".")[2]
    known = {name.rpartition(".")[2]: activation for activation, name in ACTIVATION_CLASSES.items()}
    if kind not in known:
        raise CheckpointError(f"{path}: activation_function is {kind!r}; known are {', '.join(known)}")
    if content.get("use_residual"):
        raise CheckpointError(f"{path}: use_residual is true; a dense layer with a residual is not computed")
    sizes = {name: json_field(content, name, 0, str(path)) for name in ("in_features", "out_features")}
    if min(sizes.values()) < 1:
        raise CheckpointError(f"{path}: the sizes are {sizes}; both must be at least 1. Copy the file again")
    bias = json_field(content, "bias", True, str(path))
    return DenseConfig(**sizes, bias=bias, activation=known[kind])


def _check_task(settings: Mapping[str, Any], path: Path) -> None:
    task = settings.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise CheckpointError(
            f"{path}: transformer_task is {task!r}; a sentence encoder has 'feature-extraction'. Is this a reranker?"
        )


def read_json(path: Path, default: Any) -> Any:  # Any: whatever JSON holds
    """Read a JSON file of an object, or of whatever `default` is; `default` None means that it must be there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        if default is None:
            raise CheckpointError(
                f"{path}: there is no such file. Copy it from where the model came from"
            ) from exc
        return default
    except (ValueError, RecursionError, OSError) as exc:
        raise CheckpointError(f"{path}: cannot be read as JSON ({exc}). Copy the file again") from exc
    wanted = dict if default is None else type(default)
    if not isinstance(content, wanted):
        raise CheckpointError(
            f"{path}: holds a JSON {type(content).__name__}; it must be {_JSON_KINDS[wanted]}. Copy the file again"
        )
    return content


def json_field(content: Mapping[str, Any], key: str, default: T, where: str) -> T:
    """Return a field of a JSON object, of the default's type; null counts as left out.

    Raises:
        CheckpointError: the value is of another type.
    """
    value = content.get(key)
    if value is None:
        return default
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise CheckpointError(
            f"{where}: {key!r} is {value!r}; it must be {_JSON_KINDS[type(default)]}. Copy the file again"
        )
    return value


def write_json(path: Path, content: Any) -> None:  # Any: whatever JSON holds
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
