"""Load a learned sparse model's folder into a `SparseModel`, and write one as sentence-transformers' `SparseEncoder`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from embedkit.checkpoint.folder import WEIGHTS, ModelFolder
from embedkit.checkpoint.hf_config import write_config
from embedkit.checkpoint.json_files import write_json
from embedkit.checkpoint.names import BASE_PREFIX, Family, mlm_head_names
from embedkit.checkpoint.pretraining import load_pretraining
from embedkit.checkpoint.sparse import WEIGHT, SparseFolder, read_term_weights
from embedkit.checkpoint.sparse_modules import MODEL_TYPE, term_pooling_content
from embedkit.checkpoint.st_modules import SentenceModules, texts_content
from embedkit.checkpoint.weights import export_encoder, export_tensors, save_tensors
from embedkit.errors import CheckpointError
from embedkit.model.sparse import SparseModel
from embedkit.model.sparse_config import TermPooling
from embedkit.storage.files import new_folder
from embedkit.tokenization.tokenizer import Tokenizer

_TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
_ROUTER = "sentence_transformers.base.modules.router.Router"
_POOLING = "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling"
_STATIC = "sentence_transformers.sparse_encoder.modules.sparse_static_embedding.SparseStaticEmbedding"
_DOCUMENT = ("document_0_Transformer", "document_1_SpladePooling")
_QUERY = "query_0_SparseStaticEmbedding"


def load_sparse(folder: SparseFolder) -> SparseModel:
    """Build the model of a folder with its weights, fp32, on the CPU.

    Raises:
        CheckpointError: weights are missing or mis-shaped, or queries go through a model of their own.
    """
    query, document = folder.sides["query"], folder.sides["document"]
    if document.model is None or document.pooling is None:
        raise CheckpointError(
            f"{folder.path}: documents have weights of tokens alone; there is no model to train"
        )
    if query is not document and query.model is not None:
        raise CheckpointError(
            f"{folder.path}: queries and documents have a model each; one is trained for both, or one for documents with weights for "
            "the tokens of queries"
        )
    model, _ = load_pretraining(document.model, fresh_heads=False)
    weights = None if query is document else torch.tensor(read_term_weights(query))
    return SparseModel(
        model.encoder,
        model.mlm,
        document.pooling,
        query_weights=weights,
        special=_special(document.model),
    )


def sparse_of(
    folder: ModelFolder, pooling: TermPooling, *, weigh_queries: bool
) -> tuple[SparseModel, tuple[str, ...]]:
    """Make a sparse model of any encoder whose family has a masked-language-model head; also name what is new.

    A head that the folder lacks is made anew: its decoder is the token table, and what comes before it passes vectors on. With `weigh_queries` each token of a query weighs 1 at first.

    Raises:
        CheckpointError: the family has no such head, or weights are missing or mis-shaped.
    """
    model, fresh = load_pretraining(folder)
    dense = model.mlm.dense
    if fresh and dense.in_features == dense.out_features:
        with torch.no_grad():
            torch.nn.init.eye_(dense.weight)
    weights = torch.ones(folder.config.vocab_size) if weigh_queries else None
    made = SparseModel(model.encoder, model.mlm, pooling, query_weights=weights, special=_special(folder))
    return made, fresh


def _special(folder: ModelFolder) -> tuple[int, ...]:
    """Return the tokens that stand around every text."""
    return (*folder.tokenizer.single.prefix, *folder.tokenizer.single.suffix)


def write_sparse(
    target: str | Path,
    model: SparseModel,
    tokenizer: Tokenizer,
    modules: SentenceModules,
    *,
    family: Family,
    max_active_dims: int | None = None,
) -> None:
    """Write a folder that sentence-transformers' `SparseEncoder` loads with the same vectors.

    Raises:
        OutputError: the target exists, or cannot be written.
    """
    with new_folder(target) as folder:
        write_sparse_files(folder, model, tokenizer, modules, family=family, max_active_dims=max_active_dims)


def write_sparse_files(
    folder: Path,
    model: SparseModel,
    tokenizer: Tokenizer,
    modules: SentenceModules,
    *,
    family: Family,
    max_active_dims: int | None = None,
) -> None:
    """Write the model's files into an existing folder."""
    where, pooling = folder, folder / "1_SpladePooling"
    if model.query_weights is None:
        rows = [("", _TRANSFORMER), (pooling.name, _POOLING)]
    else:
        where, pooling = (folder / name for name in _DOCUMENT)
        rows = [("", _ROUTER)]
        _write_router(folder, model, tokenizer)
        where.mkdir()
    pooling.mkdir()
    write_json(pooling / "config.json", term_pooling_content(model.pooling, model.dimension))
    write_json(
        folder / "modules.json",
        [{"idx": at, "name": str(at), "path": path, "type": kind} for at, (path, kind) in enumerate(rows)],
    )
    content = texts_content(replace(modules, truncate_dim=None)) | {"model_type": MODEL_TYPE}
    if max_active_dims is not None:
        content["max_active_dims"] = max_active_dims
    write_json(folder / "config_sentence_transformers.json", content)
    _write_encoder(where, model, tokenizer, modules, family)


def _write_encoder(
    where: Path, model: SparseModel, tokenizer: Tokenizer, modules: SentenceModules, family: Family
) -> None:
    config = model.encoder.config
    content = write_config(config, family, head="ForMaskedLM") | {"tie_word_embeddings": True}
    write_json(where / "config.json", content)
    tensors = export_encoder(model.encoder, family, prefix=BASE_PREFIX[family])
    tensors |= export_tensors(model.mlm, mlm_head_names(family, config))
    save_tensors(tensors, where / WEIGHTS)
    limits = {
        "max_seq_length": modules.max_seq_length or tokenizer.max_length,
        "do_lower_case": modules.lowercase,
    }
    read = {"text": {"method": "forward", "method_output_name": "logits"}}
    task = {
        "transformer_task": "fill-mask",
        "modality_config": read,
        "module_output_name": "token_embeddings",
    }
    write_json(where / "sentence_bert_config.json", limits | task)
    tokenizer.save(where, token_types=config.type_vocab_size > 1)


def _write_router(folder: Path, model: SparseModel, tokenizer: Tokenizer) -> None:
    assert model.query_weights is not None
    types = {_QUERY: _STATIC, _DOCUMENT[0]: _TRANSFORMER, _DOCUMENT[1]: _POOLING}
    write_json(
        folder / "router_config.json",
        {
            "types": types,
            "structure": {"query": [_QUERY], "document": list(_DOCUMENT)},
            "parameters": {"default_route": "document", "allow_empty_key": True, "route_mappings": {}},
        },
    )
    where = folder / _QUERY
    where.mkdir()
    write_json(where / "config.json", {"frozen": False})
    weights = model.query_weights.detach().float().cpu().contiguous().clone()
    save_tensors({WEIGHT: weights}, where / WEIGHTS)
    tokenizer.save(where, token_types=False)
