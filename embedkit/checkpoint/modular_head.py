"""Cross-encoders whose head is a list of modules, as sentence-transformers 5.4 and later save them: Pooling, Dense, LayerNorm, Dense.

They stand on a plain encoder, in folders of their own: the Ettin rerankers are such models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from embedkit.checkpoint.hub_weights import StoredT
from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.checkpoint.st_modules import module_kind, module_path
from embedkit.checkpoint.st_parts import read_layer, read_pooling
from embedkit.errors import CheckpointError
from embedkit.model.config import (
    DenseConfig,
    HeadActivation,
    HeadConfig,
    HeadLayer,
    HeadPooling,
    LayerNormConfig,
)

_ORDERS = (["Dense"], ["Dense", "Dense"], ["Dense", "LayerNorm", "Dense"])
_SCORES = "scores"  # what the last module writes


@dataclass(frozen=True)
class ModularHead:
    """A head's shape, and where the weights of each of its layers lie: `dense`, `norm` and `out` by their folders."""

    config: HeadConfig
    folders: Mapping[str, str]

    def weights(self, read: Callable[[str], Mapping[str, StoredT]]) -> dict[str, StoredT]:
        """Read the weights by our names; `read` gives those of a folder: `linear.weight`, or `norm.weight` of a norm."""
        return {
            f"{layer}.{name.removeprefix('norm.' if layer == 'norm' else 'linear.')}": weight
            for layer, folder in self.folders.items()
            for name, weight in read(folder).items()
        }


def is_modular(folder: Path) -> bool:
    """Say whether a folder is a cross-encoder's by its settings, and pools the vectors of tokens for modules that follow."""
    texts = read_json(folder / "config_sentence_transformers.json", {})
    return texts.get("model_type") == "CrossEncoder" and _kinds(folder)[:2] == ["Transformer", "Pooling"]


def read_modular_head(folder: Path, hidden_size: int) -> ModularHead:
    """Read the modules that make a score of the vectors of a pair's tokens.

    Raises:
        CheckpointError: a file is missing or unreadable, or the modules are not those that are computed.
    """
    where = folder / "modules.json"
    rows = read_json(where, [])
    kinds = [module_kind(row, folder) for row in rows]
    names = [module_path(row, folder) for row in rows]
    if kinds[2:] not in _ORDERS or names[0]:
        raise CheckpointError(
            f"{where}: the modules are {', '.join(kinds)}; of a cross-encoder with modules Transformer in the folder itself is computed, "
            "then Pooling, perhaps Dense and LayerNorm, and Dense"
        )
    pooling, _ = read_pooling(folder / names[1] / "config.json")
    if len(pooling) != 1 or pooling[0] not in get_args(HeadPooling):
        raise CheckpointError(
            f"{folder / names[1] / 'config.json'}: pooling is {', '.join(pooling)}; of a cross-encoder one of "
            f"{', '.join(get_args(HeadPooling))} is computed"
        )
    found = [
        _read_layer(kind, folder / name / "config.json", last=number == len(kinds) - 1)
        for number, (kind, name) in enumerate(zip(kinds, names, strict=True))
        if number > 1
    ]
    roles = {1: ("out",), 2: ("dense", "out"), 3: ("dense", "norm", "out")}[len(found)]
    layers = dict(zip(roles, found, strict=True))
    config = _head(layers, cast("HeadPooling", pooling[0]), hidden_size, where)
    return ModularHead(config, dict(zip(roles, names[2:], strict=True)))


def _head(layers: Mapping[str, HeadLayer], pooling: HeadPooling, hidden_size: int, where: Path) -> HeadConfig:
    dense, norm, out = layers.get("dense"), layers.get("norm"), layers["out"]
    sizes = [(each.in_features, each.out_features) for each in (dense, norm) if each is not None]
    if any(size != (hidden_size, hidden_size) for size in sizes) or out.in_features != hidden_size:
        raise CheckpointError(
            f"{where}: the layers of the head take and give {[*sizes, (out.in_features, out.out_features)]} numbers; all but the last "
            f"output are to be {hidden_size}, the encoder's. Take all modules from the same model"
        )
    assert isinstance(out, DenseConfig)
    fields: dict[str, Any] = {"num_labels": out.out_features, "pooling": pooling, "out_bias": out.bias}
    if out.residual or (isinstance(dense, DenseConfig) and dense.residual):
        raise CheckpointError(f"{where}: use_residual is true; in a cross-encoder's head it is not computed")
    if not isinstance(dense, DenseConfig):
        return HeadConfig(dense=False, dropout=0.0, **fields)
    if dense.activation not in get_args(HeadActivation):
        raise CheckpointError(
            f"{where}: the activation of the first Dense is {dense.activation}; known are {', '.join(get_args(HeadActivation))}"
        )
    if isinstance(norm, LayerNormConfig):
        fields |= {"norm": True, "norm_bias": True, "norm_eps": norm.eps}
    activation = cast("HeadActivation", dense.activation)
    return HeadConfig(activation=activation, bias=dense.bias, dropout=0.0, **fields)


def _read_layer(kind: str, path: Path, *, last: bool) -> HeadLayer:
    if not last:
        return read_layer(kind, path)
    content = read_json(path, None)
    output = json_field(content, "module_output_name", "", str(path))
    if output != _SCORES:
        raise CheckpointError(
            f"{path}: module_output_name is {output!r}; the last module writes {_SCORES!r}. Take all modules from the same model"
        )
    layer = read_layer(kind, path, reads=("sentence_embedding", _SCORES))
    if not isinstance(layer, DenseConfig) or layer.activation != "identity":
        raise CheckpointError(
            f"{path}: the last module has an activation; the scores' own is activation_fn in config_sentence_transformers.json"
        )
    return layer


def _kinds(folder: Path) -> list[str]:
    rows = read_json(folder / "modules.json", [])
    return [str(row.get("type", "")).rpartition(".")[2] for row in rows if isinstance(row, dict)]
