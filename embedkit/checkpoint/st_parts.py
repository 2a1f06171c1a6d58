"""The folders of sentence-transformers' modules after the transformer: pooling, dense layers, layer norms.

Classes that a file names are compared with a short list; none is ever imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.errors import CheckpointError
from embedkit.model.config import (
    DenseActivation,
    DenseConfig,
    HeadLayer,
    LayerNormConfig,
    PoolingMode,
    SentenceConfig,
)

# our mode -> the flag of the older spelling, the name in the newer
_POOLING: dict[PoolingMode, tuple[str, str]] = {
    "cls": ("pooling_mode_cls_token", "cls"),
    "max": ("pooling_mode_max_tokens", "max"),
    "mean": ("pooling_mode_mean_tokens", "mean"),
    "mean_sqrt_len": ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    "weighted_mean": ("pooling_mode_weightedmean_tokens", "weightedmean"),
    "last": ("pooling_mode_lasttoken", "lasttoken"),
}
ACTIVATION_CLASSES: dict[DenseActivation, str] = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "silu": "torch.nn.modules.activation.SiLU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "elu": "torch.nn.modules.activation.ELU",
    "leaky_relu": "torch.nn.modules.activation.LeakyReLU",
    "mish": "torch.nn.modules.activation.Mish",
    "softplus": "torch.nn.modules.activation.Softplus",
    "selu": "torch.nn.modules.activation.SELU",
    "relu6": "torch.nn.modules.activation.ReLU6",
    "softsign": "torch.nn.modules.activation.Softsign",
    "log_sigmoid": "torch.nn.modules.activation.LogSigmoid",
    "hardtanh": "torch.nn.modules.activation.Hardtanh",
    "hardsigmoid": "torch.nn.modules.activation.Hardsigmoid",
    "hardswish": "torch.nn.modules.activation.Hardswish",
}
_SENTENCE = "sentence_embedding"  # what a module reads and writes unless its config says otherwise


def read_pooling(path: Path) -> tuple[tuple[PoolingMode, ...], bool]:
    """Return the pooling modes in their order, and whether a prompt is pooled.

    Raises:
        CheckpointError: the file is missing or unreadable, or names a mode that we do not compute.
    """
    content = read_json(path, None)
    if "pooling_mode" in content:
        named = content["pooling_mode"]
        wanted = named if isinstance(named, list) else [named]
        known = {name: mode for mode, (_, name) in _POOLING.items()}
        modes = [known.get(str(name)) for name in wanted]
    else:
        wanted = [key for key, value in content.items() if key.startswith("pooling_mode_") and value]
        known = {flag: mode for mode, (flag, _) in _POOLING.items()}
        # sentence-transformers concatenates in the order of its own list, not of the file
        modes = sorted(
            (known.get(flag) for flag in wanted), key=lambda mode: list(_POOLING).index(mode) if mode else -1
        )
    if not modes or None in modes:
        raise CheckpointError(f"{path}: pooling is {wanted}; known are {', '.join(known)}")
    pool_prompt = json_field(content, "include_prompt", True, str(path))
    return tuple(mode for mode in modes if mode is not None), pool_prompt


def pooling_content(sentence: SentenceConfig, hidden_size: int) -> dict[str, Any]:  # Any: whatever JSON holds
    """Return the content of the pooling's config."""
    content: dict[str, Any] = {
        "word_embedding_dimension": hidden_size,
        "include_prompt": sentence.pool_prompt,
    }
    if [mode for mode in _POOLING if mode in sentence.pooling] == list(sentence.pooling):
        content |= {flag: mode in sentence.pooling for mode, (flag, _) in _POOLING.items()}
    else:  # flags have no order: only the newer spelling can say it
        content["pooling_mode"] = [_POOLING[mode][1] for mode in sentence.pooling]
    return content


def read_layer(kind: str, path: Path, *, reads: Sequence[str] = (_SENTENCE,)) -> HeadLayer:
    """Read the config of a Dense or LayerNorm module, which may read and write what `reads` names, by default the first of them.

    Raises:
        CheckpointError: the file is missing or unreadable, or asks for what we do not compute.
    """
    content = read_json(path, None)
    if kind == "LayerNorm":
        return LayerNormConfig(size=_sizes(content, path, "dimension")["dimension"])
    check_names(content, path, reads=reads)
    name = json_field(content, "activation_function", ACTIVATION_CLASSES["tanh"], str(path))
    short = name.rpartition(".")[2]
    known = {full.rpartition(".")[2]: activation for activation, full in ACTIVATION_CLASSES.items()}
    if not name.startswith("torch.nn.") or short not in known:
        raise CheckpointError(
            f"{path}: activation_function is {name!r}; known are torch.nn's {', '.join(known)}"
        )
    sizes = _sizes(content, path, "in_features", "out_features")
    bias = json_field(content, "bias", True, str(path))
    residual = json_field(content, "use_residual", False, str(path))
    return DenseConfig(**sizes, bias=bias, activation=known[short], residual=residual)


def layer_content(layer: HeadLayer) -> dict[str, Any]:  # Any: whatever JSON holds
    """Return the content of a Dense or LayerNorm module's config."""
    if isinstance(layer, LayerNormConfig):
        return {"dimension": layer.size}
    sizes = {"in_features": layer.in_features, "out_features": layer.out_features, "bias": layer.bias}
    content: dict[str, Any] = {**sizes, "activation_function": ACTIVATION_CLASSES[layer.activation]}
    return content | ({"use_residual": True} if layer.residual else {})


def check_names(content: Mapping[str, Any], path: Path, *, reads: Sequence[str] = (_SENTENCE,)) -> None:
    """Refuse a module that reads or writes anything but what `reads` names: by default the sentence vector.

    Raises:
        CheckpointError: it does.
    """
    for key in ("module_input_name", "module_output_name"):
        name = json_field(content, key, reads[0], str(path))
        if name not in reads:
            raise CheckpointError(f"{path}: {key} is {name!r}; only {reads[0]!r} is computed")


def _sizes(content: Mapping[str, Any], path: Path, *names: str) -> dict[str, int]:
    sizes = {name: json_field(content, name, 0, str(path)) for name in names}
    if min(sizes.values()) < 1:
        raise CheckpointError(f"{path}: the sizes are {sizes}; each must be at least 1. Copy the file again")
    return sizes
