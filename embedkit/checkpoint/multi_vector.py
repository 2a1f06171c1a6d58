"""Multi-vector (ColBERT-style) folders as data: sentence-transformers' `MultiVectorEncoder`, PyLate's, and ColBERT's own. No torch here.

`embedkit.checkpoint.multi_vector_weights` reads their weights into modules and writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken

from embedkit.checkpoint.adapters import read_adapter
from embedkit.checkpoint.arrays import Weights
from embedkit.checkpoint.colbert import PROJECTION, read_colbert_modules, says_colbert
from embedkit.checkpoint.digests import weights_digest
from embedkit.checkpoint.families.row import Names
from embedkit.checkpoint.folder import (
    ModelFolder,
    all_weight_files,
    fit_tokenizer,
    read_tokenizer,
    tokenizer_path,
    weight_files,
)
from embedkit.checkpoint.hf_config import read_config
from embedkit.checkpoint.json_files import read_json
from embedkit.checkpoint.multi_vector_modules import (
    MultiVectorModules,
    known_words,
    read_multi_vector_modules,
    says_multi_vector,
)
from embedkit.checkpoint.names import dense_names
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.stored_arrays import read_arrays
from embedkit.checkpoint.weight_checks import check_dense_empty, take
from embedkit.errors import CheckpointError
from embedkit.model.config import SentenceConfig
from embedkit.model.shapes import dense_shapes
from embedkit.models import find_model, missing_model
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import TextRole

Json = Mapping[str, Any]  # Any: whatever JSON holds


@dataclass(frozen=True, kw_only=True)
class MultiVectorFolder:
    """A multi-vector model on disk, read but for its weights.

    `encoder` is its transformer with the tokenizer, which knows the markers; of its modules nothing but the normalization means anything.
    """

    path: Path
    encoder: ModelFolder
    modules: MultiVectorModules

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def dimension(self) -> int:
        """E, the length of a token's vector."""
        layers = self.modules.layers
        return layers[-1].out_features if layers else self.encoder.config.hidden_size

    def tokenizer(self, role: TextRole) -> Tokenizer:
        """Return the tokenizer with the limit for queries or documents."""
        modules, tokenizer = self.modules, self.encoder.tokenizer
        expansion = modules.expansion if role == "query" else None
        limit = modules.query_length if role == "query" else modules.document_length
        if expansion is not None:
            limit = (
                expansion.length if expansion.fixed else max(limit or tokenizer.max_length, expansion.length)
            )
        return tokenizer.with_max_length(min(limit or tokenizer.max_length, self.encoder.config.max_tokens))

    @cached_property
    def expansion_id(self) -> int:
        """The number of the token that fills queries up.

        Raises:
            CheckpointError: the vocabulary has no such token.
        """
        tokenizer, expansion = self.encoder.tokenizer, self.modules.expansion
        token = None if expansion is None else expansion.token
        token = token or tokenizer.special_tokens.get("mask") or self._end_token()
        found = None if token is None else tokenizer.backend.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"{self.path}: queries are filled up with the token {token or '[MASK]'!r}, which is not in the vocabulary. "
                "Name one that is as query_expansion.token in sentence_bert_config.json"
            )
        return found

    def _end_token(self) -> str | None:
        entry = read_json(self.encoder.encoder_path / "tokenizer_config.json", {}).get("eos_token")
        return entry.get("content") if isinstance(entry, dict) else entry

    @cached_property
    def skipped_ids(self) -> tuple[int, ...]:
        """The numbers of the tokens that get no vectors; words of the skiplist that are no single tokens are left out of it."""
        tokenizer = self.encoder.tokenizer
        ids = tokenizer.backend.get_vocab(with_added_tokens=True)
        return tuple(known_words(self.modules.skiplist, ids, tokenizer.special_tokens.get("unk")))

    def filled_up(self, queries: TokenBatch) -> TokenBatch:
        """Fill queries up with the tokens of their expansion, where the model has one; these are attended to or not."""
        expansion = self.modules.expansion
        if expansion is None or not len(queries):
            return queries
        wide = np.maximum(queries.lengths, expansion.length)
        ids = np.full(int(wide.sum()), self.expansion_id, dtype=np.int64)
        position = np.arange(len(ids)) - np.repeat(np.cumsum(wide) - wide, wide)
        ids[position < np.repeat(queries.lengths, wide)] = queries.input_ids
        return TokenBatch(ids, wide, num_keys=None if expansion.attend else queries.lengths)

    def counted(self, batch: TokenBatch, role: TextRole) -> NDArray[np.bool_]:
        """Say which tokens of a batch get a vector: (N,)."""
        if role not in self.modules.skiplist_roles:
            return np.ones(len(batch.input_ids), dtype=np.bool_)
        return ~np.isin(batch.input_ids, np.array(self.skipped_ids, dtype=np.int64))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the token vectors of a text, as plain JSON values: a query must be encoded with the same."""
        modules, folder = self.modules, self.encoder
        files = all_weight_files(folder)
        files += [file for name in modules.layer_folders for file in weight_files(self.path / name)]
        expansion, pooling = modules.expansion, modules.pooling
        return {
            "kind": "multi-vector",
            "weights": weights_digest(files),
            "tokenizer": folder.tokenizer.fingerprint,
            "prompts": {role: modules.prompt(role) for role in ("query", "document")},
            "query_length": self.tokenizer("query").max_length,
            "document_length": self.tokenizer("document").max_length,
            "query_expansion": None
            if expansion is None
            else asdict(expansion) | {"token": self.expansion_id},
            "skiplist": [list(self.skipped_ids), list(modules.skiplist_roles)],
            "token_pooling": None if pooling is None else asdict(pooling) | {"roles": list(pooling.roles)},
            "dimension": self.dimension,
        }


def is_multi_vector(folder: Path) -> bool:
    """Say whether a folder is that of a multi-vector model."""
    return says_multi_vector(folder) or says_colbert(folder)


def read_multi_vector_folder(folder: str | Path, *, max_seq_length: int | None = None) -> MultiVectorFolder:
    """Read and check everything in a multi-vector folder but the weights.

    `max_seq_length` is the limit of documents, and of queries that are not filled up; None: as the folder says.

    Raises:
        CheckpointError: the folder or a file in it is missing, unreadable, or of a kind that we do not compute.
    """
    path = find_model(folder)
    if not path.is_dir():
        raise CheckpointError(missing_model(str(folder)))
    if not is_multi_vector(path):
        raise CheckpointError(
            f"{path}: this is no multi-vector model, and gives a text one vector. Train a multi-vector model from it with: "
            f"embedkit train contrastive DATA --recipe multi-vector --model {path} --output DIR"
        )
    beside: tuple[str, ...] = ()
    if says_colbert(path):
        modules, beside = read_colbert_modules(path, _projection_shape(path)), (PROJECTION,)
    else:
        modules = read_multi_vector_modules(path)
    if max_seq_length is not None:
        fixed = modules.expansion is not None
        modules = replace(
            modules,
            document_length=max_seq_length,
            query_length=modules.query_length if fixed else max_seq_length,
        )
    made = MultiVectorFolder(
        path=path, encoder=_read_encoder(path, modules, beside, max_seq_length), modules=modules
    )
    _check(made)
    return made


def _read_encoder(
    path: Path, modules: MultiVectorModules, beside: tuple[str, ...], max_seq_length: int | None
) -> ModelFolder:
    where = path / modules.encoder_folder
    adapter = read_adapter(where)
    config_path = (where if adapter is None else adapter.base) / "config.json"
    content = read_json(config_path, None)
    family, config = read_config(content, str(config_path))
    tokenizer = read_tokenizer(
        tokenizer_path(where, adapter), family, config, content, lowercase=modules.lowercase
    )
    tokenizer = with_markers(tokenizer, modules.markers, path)
    tokenizer = fit_tokenizer(
        tokenizer, config, path, own_limit=modules.max_seq_length, max_seq_length=max_seq_length
    )
    return ModelFolder(
        path=path,
        family=family,
        config=config,
        modules=SentenceModules(
            sentence=SentenceConfig(normalize=True), encoder_folder=modules.encoder_folder
        ),
        tokenizer=tokenizer,
        adapter=adapter,
        beside=beside,
    )


def _projection_shape(path: Path) -> tuple[int, ...]:
    stored = read_arrays(weight_files(path))
    if PROJECTION not in stored:
        raise CheckpointError(
            f"{path}: there is no weight {PROJECTION!r}, ColBERT's projection. Copy the weights again from where the model came from"
        )
    return tuple(stored[PROJECTION].shape)


def with_markers(tokenizer: Tokenizer, markers: tuple[str, ...], where: Path) -> Tokenizer:
    """Return a tokenizer that makes one token of each marker, which must be in the vocabulary, with or without the space after it.

    Raises:
        CheckpointError: one is not.
    """
    backend = tokenizer.backend
    new = []
    for marker in markers:
        found = next(
            (text for text in (marker, marker.split()[0]) if backend.token_to_id(text) is not None), None
        )
        if found is None:
            raise CheckpointError(
                f"{where}: the marker {marker!r} is not in the vocabulary. Take all tokenizer files from the same model"
            )
        if backend.encode(found, add_special_tokens=False).tokens != [found]:
            new.append(AddedToken(found, normalized=False, special=True))
    if not new:
        return tokenizer
    copy = tokenizers.Tokenizer.from_str(backend.to_str())
    copy.add_special_tokens(new)
    return replace(tokenizer, backend=copy)


def _check(folder: MultiVectorFolder) -> None:
    """Refuse layers that do not fit one another, and lengths that do not fit the encoder."""
    modules, config = folder.modules, folder.encoder.config
    width = config.hidden_size
    for number, layer in enumerate(modules.layers):
        if layer.in_features != width:
            name = modules.layer_folders[number] if modules.layer_folders else PROJECTION
            raise CheckpointError(
                f"{folder.path / name}: takes vectors of {layer.in_features} dimensions; those that reach it have {width}. "
                "Take all modules from the same model"
            )
        width = layer.out_features
    expansion = modules.expansion
    if expansion is None:
        return
    if expansion.length > config.max_tokens:
        raise CheckpointError(
            f"{folder.path}: queries are filled up to {expansion.length} tokens; the encoder reads {config.max_tokens}. "
            "Take all files from the same model"
        )
    if modules.query_length is not None and modules.query_length < expansion.length:
        raise CheckpointError(
            f"{folder.path}: query_length is {modules.query_length}, and queries are filled up to {expansion.length} tokens. "
            "Leave query_length out"
        )
    side = read_json(folder.encoder.encoder_path / "tokenizer_config.json", {}).get("padding_side", "right")
    if side != "right":
        raise CheckpointError(
            f"{folder.path}: queries are filled up, and its tokenizer pads on the {side}; only on the right is computed. "
            "Choose a model without query_expansion"
        )
    _ = folder.expansion_id


def load_layers(folder: MultiVectorFolder) -> list[Weights]:
    """Map the weights of the projecting layers into memory, `0.weight` and perhaps `0.bias` of each.

    Raises:
        CheckpointError: weights are missing, unexpected, mis-shaped, or a file is damaged.
    """
    modules, found = folder.modules, []
    for number, layer in enumerate(modules.layers):
        if modules.style == "colbert":
            stored = read_arrays(weight_files(folder.path))
            stored, where = {PROJECTION: stored[PROJECTION]}, folder.path
            names: Names = {"0.weight": (PROJECTION,)}
        else:
            where = folder.path / modules.layer_folders[number]
            stored, names = read_arrays(weight_files(where, model=folder.path)), dense_names(layer)
        found.append(Weights(take(names, dense_shapes(layer), stored, where)))
        check_dense_empty(stored, where)
    return found
