"""Whether the parts of a model folder go together, and are of a sentence encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedkit.checkpoint.json_files import json_field
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.errors import CheckpointError
from embedkit.model.config import EncoderConfig


def check_widths(path: Path, config: EncoderConfig, modules: SentenceModules) -> None:
    """Refuse layers after the pooling that do not take what reaches them.

    Raises:
        CheckpointError: one does not.
    """
    width = modules.sentence.pooled_size(config.hidden_size)
    for name, layer in zip(modules.dense_folders, modules.sentence.dense, strict=True):
        if layer.in_features != width:
            raise CheckpointError(
                f"{path / name}: takes vectors of {layer.in_features} dimensions; those that reach it "
                f"have {width}. Take all modules from the same model"
            )
        width = layer.out_features


def check_layers(
    path: Path, config: EncoderConfig, content: Mapping[str, Any], modules: SentenceModules
) -> None:
    """Refuse a mean of layers that there are not, or that sentence-transformers would not take.

    Raises:
        CheckpointError: there are not, or it would not.
    """
    start = modules.sentence.layer_start
    if start is None:
        return
    where = path / modules.encoder_folder / "config.json"
    if start > config.num_hidden_layers:
        raise CheckpointError(
            f"{path / modules.parts['layer_mean']}: layer_start is {start}; the encoder has {config.num_hidden_layers} "
            "layers. Take all modules from the same model"
        )
    if not json_field(content, "output_hidden_states", False, str(where)):
        raise CheckpointError(
            f"{where}: output_hidden_states is not true, without which sentence-transformers passes the folder's "
            "WeightedLayerPooling over. Set it to true, or take that module out of modules.json"
        )


def check_is_encoder(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a cross-encoder, and a language model of which nothing says how to make a vector.

    Raises:
        CheckpointError: it is one; `content` is that of its config.json.
    """
    names = [
        str(name) for name in json_field(content, "architectures", list[Any](), str(path / "config.json"))
    ]
    if any(name.endswith("ForSequenceClassification") for name in names):
        raise CheckpointError(
            f"{path}: this is a cross-encoder ({names[0]}), which scores pairs of texts and gives no vectors. "
            "Rerank with it: embedkit rerank, or search --rerank"
        )
    if names[:1] and names[0].endswith("ForCausalLM") and not (path / "modules.json").is_file():
        raise CheckpointError(
            f"{path}: this is a language model ({names[0]}), of which nothing says how to make a vector. "
            "Take a sentence-transformers folder, which has a modules.json"
            + (
                ". If it answers yes or no, rerank with it: embedkit rerank, or search --rerank"
                if content.get("model_type") == "qwen3"
                else ""
            )
        )
