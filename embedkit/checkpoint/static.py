"""A static model's folder, as sentence-transformers writes it: a table of token vectors, a tokenizer, perhaps a norm. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from safetensors import SafetensorError, safe_open

from embedkit.checkpoint.st_modules import SentenceModules, read_json, write_json
from embedkit.errors import CheckpointError
from embedkit.model.config import SentenceConfig
from embedkit.tokenization.tokenizer import Tokenizer

TABLE = "embedding.weight"  # its name in model.safetensors
MODULE = "StaticEmbedding"
# A mean has no longest text; this keeps one text from filling the memory.
MAX_TOKENS = 2**16


@dataclass(frozen=True)
class StaticFolder:
    """What a static model's folder says: V tokens, E dimensions, tokenizer, normalization, prompts."""

    num_tokens: int
    embedding_size: int
    modules: SentenceModules
    tokenizer: Tokenizer


def is_static(folder: Path) -> bool:
    """Say whether the first module of a folder is a table of token vectors."""
    modules = read_json(folder / "modules.json", [])
    return bool(modules) and _kind(modules[0]) == MODULE


def read_static(folder: Path) -> StaticFolder:
    """Read everything of a static model's folder but the table.

    Raises:
        CheckpointError: a file is missing or damaged, or further modules than a norm follow.
    """
    modules = read_json(folder / "modules.json", [])
    kinds = [_kind(module) for module in modules]
    if kinds not in ([MODULE], [MODULE, "Normalize"]):
        raise CheckpointError(
            f"{folder / 'modules.json'}: the modules are {', '.join(kinds)}; a static model has {MODULE}, then Normalize at most"
        )
    name = str(modules[0].get("path") or "")
    where = (folder / name).resolve()
    if not where.is_relative_to(folder.resolve()):
        raise CheckpointError(f"{folder / 'modules.json'}: the path {name!r} leads out of the model's folder")
    num_tokens, width = _table_shape(where / "model.safetensors")
    texts = read_json(folder / "config_sentence_transformers.json", {})
    parts = SentenceModules(
        sentence=SentenceConfig(normalize=len(kinds) == 2),
        encoder_folder=name,
        prompts={str(key): str(value) for key, value in (texts.get("prompts") or {}).items()},
        default_prompt_name=texts.get("default_prompt_name"),
    )
    tokenizer = without_template(Tokenizer.load(where, max_length=MAX_TOKENS))
    if tokenizer.vocab_size > num_tokens:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the table {num_tokens} rows. Take both from the same model"
        )
    return StaticFolder(num_tokens, width, parts, tokenizer)


def without_template(tokenizer: Tokenizer) -> Tokenizer:
    """Take away the special tokens around a text: in a mean they would only add a constant."""
    content = json.loads(tokenizer.backend.to_str())
    content["post_processor"] = None
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    return Tokenizer(backend, tokenizer.special_tokens, MAX_TOKENS, tokenizer.lowercase)


def write_static_files(folder: Path, tokenizer: Tokenizer, *, normalize: bool) -> None:
    """Write everything but the table into an existing folder."""
    kinds = [MODULE, "Normalize"] if normalize else [MODULE]
    rows = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", rows)
    if normalize:
        (folder / "1_Normalize").mkdir()
        write_json(folder / "1_Normalize" / "config.json", {})
    texts: dict[str, Any] = {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", texts)
    tokenizer.save(folder, token_types=False)


def _kind(module: Any) -> str:  # Any: whatever JSON holds
    name = module.get("type") if isinstance(module, Mapping) else None
    known = isinstance(name, str) and name.startswith("sentence_transformers.")
    return name.rpartition(".")[2] if known and isinstance(name, str) else repr(name)


def _table_shape(path: Path) -> tuple[int, int]:
    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            shape: list[int] = file.get_slice(TABLE).get_shape() if names == [TABLE] else []
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({exc}). Copy it again") from exc
    if len(shape) != 2:
        raise CheckpointError(
            f"{path}: holds {', '.join(names) or 'nothing'}; a static model has one table, {TABLE!r}. Is it another kind of model?"
        )
    return int(shape[0]), int(shape[1])
