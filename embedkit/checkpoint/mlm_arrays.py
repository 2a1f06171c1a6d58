"""The weights of a masked-language-model head as numpy arrays over the mapped files. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedkit.checkpoint.adapters import merged_arrays
from embedkit.checkpoint.folder import ModelFolder, weight_files
from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.checkpoint.names import encoder_names, has_mlm_head, mlm_head_names, stripped_names, tied_names
from embedkit.checkpoint.stored_arrays import read_arrays
from embedkit.checkpoint.weight_checks import strip_base_prefix, take
from embedkit.errors import CheckpointError
from embedkit.model.shapes import Shapes
from embedkit.types import Float32


@dataclass(frozen=True)
class MlmWeights:
    """What stands on an encoder: transform, norm, decoder. The decoder's matrix is the token table unless the folder says otherwise.

    Shapes:
        dense: (D', D) with a bias (D',) or None; norm: (D',) with a bias or None; decoder: (V, D'); bias: (V,)
    """

    dense: Float32
    dense_bias: Float32 | None
    norm: Float32
    norm_bias: Float32 | None
    decoder: Float32
    bias: Float32


def load_mlm_weights(folder: ModelFolder) -> MlmWeights:
    """Read the head of a folder's model.

    Raises:
        CheckpointError: the family has no such head that we know, or it was not saved with this model, or it is damaged.
    """
    family, config, where = folder.family, folder.config, folder.encoder_path
    if not has_mlm_head(family):
        raise CheckpointError(
            f"{folder.path}: a masked-language-model head on a {family} model is not computed. Take a model of another family"
        )
    stored = read_arrays(weight_files(folder.weights_path, model=folder.path))
    stored = strip_base_prefix(merged_arrays(stored, folder.adapter), family)
    names = stripped_names(mlm_head_names(family, config), family)
    table = encoder_names(family, config)["embeddings.tokens.weight"]
    if any(theirs not in stored for parts in names.values() for theirs in parts):
        raise CheckpointError(
            f"{where}: has no masked-language-model head; it was not saved with this model. "
            "Take a checkpoint as pretraining wrote it, or train one with: embedkit train contrastive --recipe sparse"
        )
    width = config.embedding_size or config.hidden_size
    tied = json_field(
        read_json(folder.weights_path / "config.json", {}), "tie_word_embeddings", True, str(where)
    )
    own = next((name for name in tied_names(family) if name.endswith("weight") and name in stored), None)
    if not tied and own is not None:
        table = (own,)
    shapes: Shapes = {
        "dense.weight": (width, config.hidden_size),
        "norm.weight": (width,),
        "bias": (config.vocab_size,),
        "decoder": (config.vocab_size, width),
    }
    shapes |= {name: (width,) for name in ("dense.bias", "norm.bias") if name in names}
    found = {
        name: parts[0].fp32()
        for name, parts in take(names | {"decoder": table}, shapes, stored, where).items()
    }
    return MlmWeights(
        found["dense.weight"],
        found.get("dense.bias"),
        found["norm.weight"],
        found.get("norm.bias"),
        np.ascontiguousarray(found["decoder"]),
        found["bias"],
    )
