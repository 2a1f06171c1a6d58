"""ColBERT's own folders: `artifact.metadata`, and the projection as `linear.weight` beside the encoder's weights."""

from __future__ import annotations

from pathlib import Path

from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.checkpoint.multi_vector_modules import (
    COLBERT_QUERY_TOKENS,
    PUNCTUATION,
    MultiVectorModules,
    QueryExpansion,
)
from embedkit.errors import CheckpointError
from embedkit.model.config import DenseConfig

METADATA = "artifact.metadata"
PROJECTION = "linear.weight"
ARCHITECTURE = "HF_ColBERT"


def says_colbert(folder: Path) -> bool:
    """Say whether ColBERT's own code wrote a folder."""
    names = read_json(folder / "config.json", {}).get("architectures")
    return isinstance(names, list) and ARCHITECTURE in names


def read_colbert_modules(folder: Path, shape: tuple[int, ...]) -> MultiVectorModules:
    """Read `artifact.metadata`, or take what ColBERT takes without; `shape` is that of the projection's weight, (E, D).

    Raises:
        CheckpointError: the file is unreadable, asks for what is not computed, or for vectors of another length.
    """
    path = folder / METADATA
    content, where = read_json(path, {}), str(path)
    dim = json_field(content, "dim", shape[0] if shape else 0, where)
    if len(shape) != 2 or dim != shape[0]:
        raise CheckpointError(
            f"{folder}: {PROJECTION} has the shape {shape}; {METADATA} asks for vectors of {dim} dimensions. "
            "Take both from the same model"
        )
    similarity = json_field(content, "similarity", "cosine", where)
    if similarity != "cosine":
        raise CheckpointError(
            f"{path}: similarity is {similarity!r}; token vectors are compared by cosine. Choose a model that was trained so"
        )
    markers = (
        json_field(content, "query_token_id", "[unused0]", where),
        json_field(content, "doc_token_id", "[unused1]", where),
    )
    expansion = QueryExpansion(
        length=json_field(content, "query_maxlen", COLBERT_QUERY_TOKENS, where),
        attend=json_field(content, "attend_to_mask_tokens", False, where),
    )
    skips = json_field(content, "mask_punctuation", True, where)
    return MultiVectorModules(
        style="colbert",
        layers=(DenseConfig(in_features=shape[1], out_features=shape[0], bias=False, activation="identity"),),
        prompts={"query": markers[0] + " ", "document": markers[1] + " "},
        markers=markers,
        document_length=json_field(content, "doc_maxlen", 0, where) or None,
        expansion=expansion,
        skiplist=PUNCTUATION if skips else (),
    )
