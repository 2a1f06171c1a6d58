"""Multi-vector folders written, and their tensors read into a model whose head projects token vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from embedkit.checkpoint.folder import WEIGHTS
from embedkit.checkpoint.hf_config import write_config
from embedkit.checkpoint.json_files import write_json
from embedkit.checkpoint.multi_vector import MultiVectorFolder, load_layers
from embedkit.checkpoint.multi_vector_modules import MODULE_TYPES, TOKENS, MultiVectorModules
from embedkit.checkpoint.names import Family, dense_names
from embedkit.checkpoint.st_parts import layer_content
from embedkit.checkpoint.weights import (
    export_encoder,
    export_tensors,
    load_sentence_encoder,
    save_tensors,
)
from embedkit.model.config import SentenceConfig
from embedkit.model.sentence import SentenceEncoder
from embedkit.storage.files import new_folder
from embedkit.tokenization.tokenizer import Tokenizer


def load_multi_vector(folder: MultiVectorFolder) -> SentenceEncoder:
    """Build the model of a folder, in fp32, on the CPU, in evaluation mode: its `head` takes the vectors of tokens, not of pooled texts.

    Raises:
        CheckpointError: weights are missing, unexpected, mis-shaped, or the file is damaged.
    """
    encoder = load_sentence_encoder(folder.encoder).encoder
    model = SentenceEncoder(encoder, SentenceConfig(dense=folder.modules.layers, normalize=True))
    for layer, weights in zip(model.dense, load_layers(folder), strict=True):
        layer.load_state_dict({name: torch.from_numpy(weights[name].copy()) for name in weights})
    return model.eval()


def save_multi_vector(
    target: str | Path,
    model: SentenceEncoder,
    tokenizer: Tokenizer,
    modules: MultiVectorModules,
    *,
    family: Family,
) -> None:
    """Write a folder as sentence-transformers 6 does, from a model whose dense layers project tokens; whatever its `modules` were read from.

    Raises:
        OutputError: the target exists, or cannot be written.
    """
    config = model.encoder.config
    with new_folder(target) as folder:
        write_json(folder / "config.json", write_config(config, family))
        save_tensors(export_encoder(model.encoder, family), folder / WEIGHTS)
        _write_modules(folder, replace(modules, layers=model.config.dense))
        for number, (layer, shape) in enumerate(zip(model.dense, model.config.dense, strict=True)):
            save_tensors(export_tensors(layer, dense_names(shape)), folder / _layer_folder(number) / WEIGHTS)
        tokenizer.save(folder, token_types=config.type_vocab_size > 1)


def _layer_folder(number: int) -> str:
    """Return the folder that a projecting layer is written to."""
    return f"{number + 1}_Dense"


def _write_modules(folder: Path, modules: MultiVectorModules) -> None:
    """Write everything but the encoder and the weights of the layers, whose folders are made, as sentence-transformers 6 reads it."""
    kinds = ["Transformer", *["Dense"] * len(modules.layers), "MultiVectorMask", "Normalize"]
    kinds += ["HierarchicalTokenPooling"] * (modules.pooling is not None)
    names = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds) if number)]
    rows = [
        {"idx": number, "name": str(number), "path": name, "type": MODULE_TYPES[kind]}
        for number, (kind, name) in enumerate(zip(kinds, names, strict=True))
    ]
    write_json(folder / "modules.json", rows)
    between = {"module_input_name": TOKENS, "module_output_name": TOKENS}
    layers = iter(modules.layers)
    for kind, name in list(zip(kinds, names, strict=True))[1:]:
        (folder / name).mkdir()
        content: dict[str, Any] = between
        if kind == "Dense":
            content = layer_content(next(layers)) | between
        elif kind == "MultiVectorMask":
            content = {
                "skiplist_words": list(modules.skiplist),
                "skiplist_tasks": list(modules.skiplist_roles),
            }
        elif modules.pooling is not None and kind == "HierarchicalTokenPooling":
            content = {
                "pool_factor": modules.pooling.factor,
                "num_protected_tokens": modules.pooling.protected,
                "normalize_embeddings": True,
                "tasks": list(modules.pooling.roles),
            }
        write_json(folder / name / "config.json", content)
    write_json(folder / "sentence_bert_config.json", _limits(modules))
    texts = {
        "model_type": "MultiVectorEncoder",
        "prompts": dict(modules.prompts),
        "default_prompt_name": None,
        "similarity_fn_name": modules.similarity,
    }
    write_json(folder / "config_sentence_transformers.json", texts)


def _limits(modules: MultiVectorModules) -> dict[str, Any]:
    expansion = modules.expansion
    content: dict[str, Any] = {
        "max_seq_length": modules.max_seq_length,
        "do_lower_case": modules.lowercase,
        "query_length": modules.query_length,
        "document_length": modules.document_length,
        "query_expansion": None,
    }
    if expansion is not None:
        content["query_expansion"] = {
            "strategy": "fixed" if expansion.fixed else "min",
            "attend": expansion.attend,
            "token": expansion.token,
            "length": expansion.length,
        }
    return content
