"""Whitening: a linear map behind the pooling that evens out the directions in which vectors vary, found from the vectors of texts alone.

Where all documents treat one subject, most of what their vectors have in common says nothing about which of them is meant. The map takes
their mean away and gives directions in which they hardly differ more weight, so that cosines tell them apart. Nothing is trained.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedkit.errors import TrainingError
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.sentence_config import DenseConfig
from embedkit.model.static import StaticEncoder
from embedkit.types import Float32

# How far the covariance is drawn towards that of a ball, at least: chosen on CACM, CISI and TIME together with the strength.
SHRINKAGE = 0.3
# The mean cosine from which on documents are taken to treat one subject: chosen on the collections of docs/adapt.md.
ONE_SUBJECT = 0.2


@dataclass(frozen=True)
class LinearMap:
    """x -> `weight` x + `bias`: (E, E) and (E,), in float64; no bias is one of 0."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64] | None = None

    def __call__(self, vectors: Float32) -> Float32:
        """Map N vectors: (N, E) -> (N, E)."""
        mapped = vectors @ self.weight.T.astype(np.float32)
        return mapped if self.bias is None else mapped + self.bias.astype(np.float32)


def mean_cosine(vectors: Float32) -> float:
    """Return the mean cosine of two of N vectors (N, E), each with itself counted too: the squared norm of their unit vectors' mean."""
    kept = vectors[vectors.any(axis=1)].astype(np.float64)
    mean = (kept / np.linalg.norm(kept, axis=1, keepdims=True)).mean(axis=0) if len(kept) else np.zeros(1)
    return float(mean @ mean)


def fit_whitening(vectors: Float32, strength: float, *, centring: float = 1.0) -> LinearMap:
    """Return the map for N vectors (N, E) as they are before they are normalized; `strength` 1 whitens them fully, 0 only centres them.

    The weight is C^(-strength / 2), scaled so that a direction of average variance keeps its length; the bias takes the share `centring`
    of the mean away. C is the covariance drawn towards a multiple of the identity, the more so the fewer vectors there are: by
    E / (E + N), at least `SHRINKAGE`.
    It is symmetric, so that leading dimensions still stand for the whole (Matryoshka).

    Sources: Su et al. 2021, https://arxiv.org/abs/2103.15316, whose map is that of strength 1; Ledoit and Wolf 2004,
    https://doi.org/10.1016/S0047-259X(03)00096-4 (towards what the covariance is drawn).

    Raises:
        TrainingError: the vectors do not differ.
    """
    kept = vectors[vectors.any(axis=1)].astype(np.float64)  # a text without tokens has a zero vector
    count, width = kept.shape
    mean = kept.mean(axis=0) if count else np.zeros(width)
    centred = kept - mean
    covariance = centred.T @ centred / max(1, count)
    average = np.trace(covariance) / width
    if not average > 1e-12 * max(1.0, float(mean @ mean)):
        raise TrainingError(
            f"the {count} vectors that whitening would be found from do not differ. Take other documents, or leave it out (whitening 0)"
        )
    shrinkage = max(SHRINKAGE, width / (width + count))
    values, directions = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * average * np.eye(width))
    weight = (directions * (values / average) ** (-strength / 2)) @ directions.T
    return LinearMap(weight, -weight @ mean * centring)


def before_normalization(model: SentenceEncoder | StaticEncoder) -> SentenceEncoder | StaticEncoder:
    """Return the model, of the same weights, that gives the vectors which a map is found from: as they are before they are normalized."""
    raw = copy(model)
    if isinstance(raw, StaticEncoder):
        raw.normalize = False
    else:
        raw.config = replace(raw.config, normalize=False)
    return raw


def add_linear(model: SentenceEncoder | StaticEncoder, linear: LinearMap) -> None:
    """Put a map behind a model's last layer, before the normalization: into that layer where it is linear, else as a layer of its own.

    In a static model it goes into the table: the mean of mapped token vectors is the map of their mean.
    """
    if isinstance(model, StaticEncoder):
        with torch.no_grad():
            table = model.tokens.weight.double() @ torch.from_numpy(linear.weight).T
            model.tokens.weight.copy_(table if linear.bias is None else table + torch.from_numpy(linear.bias))
        return
    layers = model.config.dense
    last = layers[-1] if layers else None
    weight, bias = linear.weight, linear.bias
    if isinstance(last, DenseConfig) and last.activation == "identity" and not last.residual:
        before = {name: tensor.double().numpy() for name, tensor in model.dense[-1].state_dict().items()}
        if last.bias:
            bias = weight @ before["0.bias"] + (0 if bias is None else bias)
        weight = weight @ before["0.weight"]
        shape, layers = replace(last, bias=bias is not None), layers[:-1]
    else:
        size = len(weight)
        shape = DenseConfig(in_features=size, out_features=size, bias=bias is not None, activation="identity")
    layer = nn.Linear(shape.in_features, shape.out_features, bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))
    model.dense = nn.ModuleList([*model.dense[: len(layers)], nn.Sequential(layer, nn.Identity())])
    model.config = replace(model.config, dense=(*layers, shape))
