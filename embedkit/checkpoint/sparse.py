"""A learned sparse model's folder, both ways: sentence-transformers' `SparseEncoder`. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from embedkit.checkpoint.adapters import read_adapter
from embedkit.checkpoint.digests import weights_digest
from embedkit.checkpoint.folder import (
    ModelFolder,
    fit_tokenizer,
    read_tokenizer,
    tokenizer_path,
    weight_files,
)
from embedkit.checkpoint.folder import fingerprint as model_fingerprint
from embedkit.checkpoint.hf_config import read_config
from embedkit.checkpoint.json_files import read_json
from embedkit.checkpoint.sparse_modules import MODEL_TYPE, SideModules, is_sparse, read_side, sparse_refusal
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.st_settings import read_limits, read_texts
from embedkit.checkpoint.static import MAX_TOKENS, without_template
from embedkit.checkpoint.stored_arrays import read_arrays
from embedkit.checkpoint.weight_checks import take
from embedkit.errors import CheckpointError
from embedkit.model.sparse_config import TermPooling
from embedkit.models import find_model, missing_model, model_name
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import Float32, TextRole

__all__ = [
    "SparseFolder",
    "SparseSide",
    "is_sparse",
    "read_sparse_folder",
    "read_term_weights",
    "sparse_refusal",
]
WEIGHT = "weight"  # of each token, in the safetensors of a `SparseStaticEmbedding`
IDF = "idf.json"  # or in this file, by token


@dataclass(frozen=True, kw_only=True)
class SparseSide:
    """What turns the texts of a role into sparse vectors of V dimensions.

    Either `model` with `pooling`, a masked language model, or neither: a table of weights in `path`, one for each token that a text holds.
    """

    path: Path
    tokenizer: Tokenizer
    dimension: int
    model: ModelFolder | None = None
    pooling: TermPooling | None = None


@dataclass(frozen=True, kw_only=True)
class SparseFolder:
    """A learned sparse model on disk, read but for its weights; `modules` holds its prompts and what compares its vectors."""

    path: Path
    sides: Mapping[TextRole, SparseSide]
    modules: SentenceModules
    max_active_dims: int | None
    kind: Literal["sparse"] = "sparse"
    recursions = None

    @property
    def name(self) -> str:
        """What to call the model: the name of a shipped one, else its path."""
        return model_name(self.path)

    @property
    def dimension(self) -> int:
        """V, the terms of the vocabulary."""
        return self.sides["document"].dimension


def read_sparse_folder(folder: str | Path, *, max_seq_length: int | None = None) -> SparseFolder:
    """Read and check everything in a sparse model's folder but the weights.

    Raises:
        CheckpointError: the folder or a file in it is missing, unreadable, or of a kind that we do not compute.
    """
    path = find_model(folder)
    if not path.is_dir():
        raise CheckpointError(missing_model(str(folder)))
    if not is_sparse(path):
        raise CheckpointError(
            f"{path}: this is no learned sparse model: its modules.json names no SpladePooling and no SparseStaticEmbedding. "
            "Name the folder of one"
        )
    config = path / "config_sentence_transformers.json"
    texts = read_texts(config, kind=MODEL_TYPE, similarity="dot")
    if texts["truncate_dim"] is not None:
        raise CheckpointError(
            f"{config}: truncate_dim is set; of a sparse model no dimensions are cut off. Set it to null"
        )
    modules = SentenceModules(**texts)
    limit = read_json(config, {}).get("max_active_dims")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise CheckpointError(
            f"{config}: max_active_dims is {limit!r}; it must be a whole number above 0, or null"
        )
    roles: tuple[TextRole, ...] = get_args(TextRole)
    found = {role: read_side(path, role) for role in roles}
    query = _side(path, found["query"], modules, max_seq_length)
    document = (
        query
        if found["query"] == found["document"]
        else _side(path, found["document"], modules, max_seq_length)
    )
    _check_same_terms(path, query, document)
    return SparseFolder(
        path=path, sides={"query": query, "document": document}, modules=modules, max_active_dims=limit
    )


def _check_same_terms(path: Path, query: SparseSide, document: SparseSide) -> None:
    """Refuse sides whose dimensions stand for other terms."""
    if query is document:
        return
    if query.dimension != document.dimension:
        raise CheckpointError(
            f"{path}: the vectors of queries have {query.dimension} dimensions, those of documents {document.dimension}. "
            "Take all modules from the same model"
        )
    if query.tokenizer.backend.get_vocab() != document.tokenizer.backend.get_vocab():
        raise CheckpointError(
            f"{path}: the tokenizer of queries has other tokens than that of documents, so a dimension stands for two terms. "
            "Take all modules from the same model"
        )


def _side(path: Path, found: SideModules, modules: SentenceModules, max_seq_length: int | None) -> SparseSide:
    where = path / found.folder
    if found.pooling is None:
        return _weights_side(where, max_seq_length)
    own_limit, lowercase = read_limits(where, task="fill-mask")
    modules = replace(modules, encoder_folder=found.folder, max_seq_length=own_limit, lowercase=lowercase)
    adapter = read_adapter(where)
    config_path = (where if adapter is None else adapter.base) / "config.json"
    content = read_json(config_path, None)
    family, config = read_config(content, str(config_path))
    tokens = tokenizer_path(where, adapter)
    tokenizer = fit_tokenizer(
        read_tokenizer(tokens, family, config, content, lowercase=lowercase),
        config,
        path,
        own_limit=own_limit,
        max_seq_length=max_seq_length,
    )
    model = ModelFolder(
        path=path, family=family, config=config, modules=modules, tokenizer=tokenizer, adapter=adapter
    )
    return SparseSide(
        path=where, tokenizer=tokenizer, dimension=config.vocab_size, model=model, pooling=found.pooling
    )


def _weights_side(where: Path, max_seq_length: int | None) -> SparseSide:
    tokenizer = Tokenizer.load(where, default_max_length=MAX_TOKENS)
    tokenizer = without_template(tokenizer, max_length=max_seq_length or tokenizer.max_length)
    side = SparseSide(path=where, tokenizer=tokenizer, dimension=tokenizer.vocab_size)
    return replace(side, dimension=len(read_term_weights(side)))


def read_term_weights(side: SparseSide) -> Float32:
    """Read the weight of each token of a side without a model: (V,).

    Raises:
        CheckpointError: a file is missing or damaged, or the weights do not fit the tokenizer.
    """
    where = side.path
    if read_json(where / "config.json", {}).get("path") is not None:
        return _idf_weights(side)
    stored = read_arrays(weight_files(where))
    shape = stored[WEIGHT].shape if WEIGHT in stored else (side.tokenizer.vocab_size,)
    if len(shape) != 1 or shape[0] < side.tokenizer.vocab_size:
        raise CheckpointError(
            f"{where}: the weights have shape {tuple(shape)}; the tokenizer has {side.tokenizer.vocab_size} tokens. "
            "Take both from the same model"
        )
    (weight,) = take({WEIGHT: (WEIGHT,)}, {WEIGHT: shape}, stored, where)[WEIGHT]
    return weight.fp32()


def _idf_weights(side: SparseSide) -> Float32:
    """Read a JSON of weights by token; tokens that it leaves out weigh nothing."""
    path = next((folder / IDF for folder in (side.path, side.path.parent) if (folder / IDF).is_file()), None)
    if path is None:
        raise CheckpointError(
            f"{side.path / IDF}: no such file, which the config names. Copy it from where the model came from"
        )
    content: dict[str, Any] = read_json(path, None)
    weights = np.zeros(side.tokenizer.vocab_size, np.float32)
    vocabulary = side.tokenizer.backend.get_vocab()
    for token, weight in content.items():
        if not isinstance(weight, (int, float)) or isinstance(weight, bool):
            raise CheckpointError(
                f"{path}: the weight of {token!r} is {json.dumps(weight)}; it must be a number"
            )
        at = vocabulary.get(token, side.tokenizer.unknown_id)  # transformers takes unknown ones so, too
        if at is not None:
            weights[at] = weight
    return weights


def fingerprint(folder: SparseFolder) -> dict[str, Any]:  # Any: whatever JSON holds
    """Say what decides the vectors of a text, as plain JSON values: a query must be encoded with the same."""
    return {
        "kind": "sparse",
        "sides": {role: _side_fingerprint(side) for role, side in folder.sides.items()},
        "prompts": dict(folder.modules.prompts),
        "default_prompt": folder.modules.default_prompt_name,
        "dimension": folder.dimension,
    }


def _side_fingerprint(side: SparseSide) -> dict[str, Any]:
    common = {"tokenizer": side.tokenizer.fingerprint, "max_seq_length": side.tokenizer.max_length}
    if side.model is None or side.pooling is None:
        idf = [path for folder in (side.path, side.path.parent) if (path := folder / IDF).is_file()]
        named = read_json(side.path / "config.json", {}).get("path") is not None
        return common | {"weights": weights_digest(idf[:1] if named else weight_files(side.path))}
    pooling = f"{side.pooling.strategy} of {side.pooling.activation}"
    return common | {"weights": model_fingerprint(side.model)["weights"], "pooling": pooling}
