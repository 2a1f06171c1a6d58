"""A static model's folder: a table of token vectors, a tokenizer, perhaps a norm. No torch here.

Two libraries write such folders. sentence-transformers' has a `modules.json`, and is read as that library does, also where
model2vec wrote it. Without one it is model2vec's own layout, whose `config.json` says what else is done to a text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import tokenizers
from safetensors import SafetensorError, safe_open

from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.checkpoint.quantized import COLUMN_SCALE, ROW_SCALE
from embedkit.checkpoint.st_modules import SentenceModules, module_path, write_module_list, write_texts
from embedkit.checkpoint.st_parts import check_names, read_pooling
from embedkit.checkpoint.st_router import read_module_list
from embedkit.checkpoint.st_settings import read_texts
from embedkit.errors import CheckpointError
from embedkit.model.config import SentenceConfig
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.tokenization.words import read_words
from embedkit.types import TextRole

TABLE = "embedding.weight"  # its name in model.safetensors
MODEL2VEC_TABLE = "embeddings"  # in model2vec's files, where `mapping` may give tokens their rows, and `weights` their weights
WORD_TABLE = "emb_layer.weight"  # in sentence-transformers' older tables, of whole words
MODULE, WORD_MODULE = "StaticEmbedding", "WordEmbeddings"
# A mean has no longest text; this keeps one text from filling the memory.
MAX_TOKENS = 2**16
MODEL2VEC_MAX_TOKENS = 512  # what model2vec reads of a text where its config says nothing


@dataclass(frozen=True)
class StaticFolder:
    """What a static model's folder says: V tokens, E dimensions, tokenizer, normalization, prompts."""

    num_tokens: int
    embedding_size: int
    modules: SentenceModules
    tokenizer: Tokenizer


def is_static(folder: Path, role: TextRole | None = None) -> bool:
    """Say whether the first module of a folder is a table of token vectors, or the folder is model2vec's.

    `role` says whose modules of a router's folder are meant.
    """
    modules = read_module_list(folder, role)
    return _kind(modules[0]) in (MODULE, WORD_MODULE) if modules else _is_model2vec(folder)


def _is_model2vec(folder: Path) -> bool:
    config = read_json(folder / "config.json", {})
    kind = config.get("model_type")
    table = folder / "model.safetensors"
    return kind == "model2vec" or (kind is None and table.is_file() and MODEL2VEC_TABLE in _shapes(table))


def read_static(folder: Path, role: TextRole | None = None) -> StaticFolder:
    """Read everything of a static model's folder but the table.

    Raises:
        CheckpointError: a file is missing or damaged, or further modules than a norm follow.
    """
    modules = read_module_list(folder, role)
    parts, tokenizer = _with_modules(folder, modules) if modules else _model2vec(folder)
    num_tokens, width = _table_shape(folder / parts.encoder_folder / "model.safetensors")
    if tokenizer.vocab_size > num_tokens:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the table {num_tokens} rows. Take both from the same model"
        )
    return StaticFolder(num_tokens, width, parts, tokenizer)


def _with_modules(folder: Path, modules: list[Any]) -> tuple[SentenceModules, Tokenizer]:
    """Read a folder as sentence-transformers does: its tokenizer cuts a text only where tokenizer.json itself says so."""
    where = folder / "modules.json"
    kinds = [_kind(module) for module in modules]
    kept = [kind for kind in kinds if kind != "Dropout"]  # which does nothing to vectors
    if kept[:1] == [WORD_MODULE]:
        return _word_vectors(folder, modules, kinds, kept)
    if kept not in ([MODULE], [MODULE, "Normalize"]):
        raise CheckpointError(
            f"{where}: the modules are {', '.join(kinds)}; a static model has {MODULE}, then Normalize at most"
        )
    name = module_path(modules[0], folder)
    for kind, module in zip(kinds, modules, strict=True):
        if kind == "Normalize":
            config = folder / module_path(module, folder) / "config.json"
            check_names(read_json(config, {}), config)
    parts = SentenceModules(
        sentence=SentenceConfig(normalize="Normalize" in kinds),
        encoder_folder=name,
        **read_texts(folder / "config_sentence_transformers.json"),
    )
    tokenizer = Tokenizer.load_file(folder / name / "tokenizer.json", default_max_length=MAX_TOKENS)
    return parts, without_template(tokenizer, max_length=tokenizer.max_length)


def _word_vectors(
    folder: Path, modules: list[Any], kinds: list[str], kept: list[str]
) -> tuple[SentenceModules, Tokenizer]:
    """Read a table of word vectors and the mean that follows on it."""
    where = folder / "modules.json"
    if kept not in ([WORD_MODULE, "Pooling"], [WORD_MODULE, "Pooling", "Normalize"]):
        raise CheckpointError(
            f"{where}: the modules are {', '.join(kinds)}; on {WORD_MODULE} Pooling follows, then Normalize at most"
        )
    paths = dict(zip(kinds, (folder / module_path(module, folder) for module in modules), strict=True))
    pooling, _ = read_pooling(paths["Pooling"] / "config.json")
    if pooling != ("mean",):
        raise CheckpointError(
            f"{paths['Pooling'] / 'config.json'}: pooling is {', '.join(pooling)}; of word vectors the mean is computed"
        )
    name = module_path(modules[0], folder)
    path = folder / name / "wordembedding_config.json"
    limit = json_field(read_json(path, {}), "max_seq_length", MAX_TOKENS, str(path))
    rules, backend = read_words(folder / name)
    tokenizer = Tokenizer(backend, {}, max(1, min(limit, MAX_TOKENS)), words=rules)
    parts = SentenceModules(
        sentence=SentenceConfig(normalize="Normalize" in kinds),
        encoder_folder=name,
        **read_texts(folder / "config_sentence_transformers.json"),
    )
    return parts, tokenizer


def _model2vec(folder: Path) -> tuple[SentenceModules, Tokenizer]:
    """Read a folder as model2vec does: it cuts a text to its first characters and tokens, and drops the unknown ones."""
    where = folder / "config.json"
    config = read_json(where, {})
    limit = json_field(
        config, "max_length", MAX_TOKENS if "max_length" in config else MODEL2VEC_MAX_TOKENS, str(where)
    )
    if limit < 1:
        raise CheckpointError(f"{where}: max_length is {limit}; it must be at least 1. Correct the file")
    tokenizer = Tokenizer.load_file(folder / "tokenizer.json", default_max_length=MAX_TOKENS)
    usual = int(median(map(len, tokenizer.backend.get_vocab())))
    tokenizer = replace(
        without_template(tokenizer, max_length=limit),
        truncation_side="right",
        max_chars=None if config.get("max_length", limit) is None else limit * usual,
        drop_unknown=True,
    )
    normalize = json_field(config, "normalize", False, str(where))
    return SentenceModules(sentence=SentenceConfig(normalize=normalize)), tokenizer


def without_template(tokenizer: Tokenizer, *, max_length: int = MAX_TOKENS) -> Tokenizer:
    """Take away the special tokens around a text: in a mean they would only add a constant."""
    backend = tokenizer.backend
    if backend.post_processor is not None:  # else to build it again would take longer than a search
        content = json.loads(backend.to_str())
        content["post_processor"] = None
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    return replace(tokenizer, backend=backend, max_length=max_length)


def write_static_files(
    folder: Path, tokenizer: Tokenizer, modules: SentenceModules, *, normalize: bool
) -> None:
    """Write everything but the table into an existing folder.

    Raises:
        ValueError: the tokenizer does to a text what only model2vec's own layout can say.
    """
    if tokenizer.words is not None:
        raise ValueError(
            "a table of word vectors cannot be written as a StaticEmbedding, which splits texts otherwise"
        )
    if tokenizer.drop_unknown:
        raise ValueError(
            "a tokenizer that drops unknown tokens cannot be written into sentence-transformers' layout"
        )
    write_module_list(folder, [f"0_{MODULE}", "1_Normalize"] if normalize else [f"0_{MODULE}"])
    write_texts(folder, modules)
    tokenizer.save(folder, token_types=False)
    if tokenizer.max_length < MAX_TOKENS:  # sentence-transformers reads no other limit than this file's
        backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
        backend.enable_truncation(tokenizer.max_length, direction=tokenizer.truncation_side)
        backend.save(str(folder / "tokenizer.json"), pretty=False)


def _kind(module: Any) -> str:  # Any: whatever JSON holds
    name = module.get("type") if isinstance(module, Mapping) else None
    known = isinstance(name, str) and name.startswith("sentence_transformers.")
    return name.rpartition(".")[2] if known and isinstance(name, str) else repr(name)


def _shapes(path: Path) -> dict[str, list[int]]:
    """Return the shapes of all tensors of a file, by name."""
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({exc}). Copy it again") from exc


def _table_shape(path: Path) -> tuple[int, int]:
    """Return how many tokens have a vector, and how long these are."""
    shapes = _shapes(path)
    name = next((name for name in (TABLE, MODEL2VEC_TABLE, WORD_TABLE) if name in shapes), TABLE)
    table = shapes.get(name, [])
    others = shapes.keys() - {name, "mapping", "weights"}
    if others == {name + ROW_SCALE, name + COLUMN_SCALE}:  # a table in 8 bits
        others = set()
    rows = shapes.get("mapping", table)[:1]
    if len(table) != 2 or others or shapes.get("weights", rows) != rows:
        raise CheckpointError(
            f"{path}: holds {', '.join(f'{name} {shape}' for name, shape in sorted(shapes.items())) or 'nothing'}; a static "
            f"model has one table, {TABLE!r} or {MODEL2VEC_TABLE!r}, with a mapping and weights for each token at most. "
            "Is it another kind of model?"
        )
    return int(rows[0]), int(table[1])
