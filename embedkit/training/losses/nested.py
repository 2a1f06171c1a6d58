"""Wrappers that apply a loss to parts of a model: to the first dimensions (Matryoshka), to earlier layers.

A wrapped loss takes embeddings as its positional arguments and nothing else; bind labels and options first,
for example with `functools.partial` or a lambda.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from embedkit.training.losses.shapes import check_positive, check_shape

EmbeddingLoss = Callable[..., Tensor]


def matryoshka(
    loss: EmbeddingLoss,
    *,
    dims: Sequence[int],
    weights: Sequence[float] | None = None,
    normalize: bool = True,
) -> EmbeddingLoss:
    """Make a loss that sums `loss` over embeddings cut to their first `dims` dimensions.

    `normalize` brings what is left back to unit length, as it will be when used. The full width counts only if
    `dims` names it.

    Shapes (of the returned loss):
        each embedding: (N, E), E at least max(dims)
        returns: () weighted sum, in units of `loss`
    Raises:
        ValueError: here if dims are empty, not above 0 or repeated, or weights differ in number; when called if an
            embedding is narrower than a dimension.
    Source: Kusupati et al. 2022, https://arxiv.org/abs/2205.13147, eq. 1.
    """
    if not dims or min(dims) < 1 or len(set(dims)) != len(dims):
        raise ValueError(f"matryoshka: dims are {list(dims)}; they must be distinct whole numbers above 0")
    if weights is None:
        weights = [1.0] * len(dims)
    elif len(weights) != len(dims):
        raise ValueError(f"matryoshka: {len(weights)} weights for {len(dims)} dims; give one a dimension")
    weighted_dims = list(zip(dims, weights, strict=True))

    def nested(*embeddings: Tensor) -> Tensor:
        narrowest = min(embedding.shape[-1] for embedding in embeddings)
        if narrowest < max(dims):
            raise ValueError(
                f"matryoshka: embeddings of {narrowest} dimensions cannot be cut to {max(dims)}; leave it out of dims"
            )
        losses = [weight * loss(*(cut(e, dim) for e in embeddings)) for dim, weight in weighted_dims]
        return torch.stack(losses).sum()

    def cut(embedding: Tensor, dim: int) -> Tensor:
        return F.normalize(embedding[..., :dim], dim=-1) if normalize else embedding[..., :dim]

    return nested


def adaptive_layer(
    loss: EmbeddingLoss,
    *,
    prior_layers_weight: float = 1.0,
    kl_weight: float = 1.0,
    kl_temperature: float = 0.3,
) -> EmbeddingLoss:
    """Make a loss that trains earlier layers too, so that a model cut after any of them still embeds.

    It is `loss` of the last layer, plus `prior_layers_weight` times its mean over the earlier layers given, plus
    `kl_weight * kl_temperature` times the divergence of each of these layers from the last one, which serves as
    a fixed target: both embeddings are read as distributions over dimensions by a softmax at `kl_temperature`.

    Shapes (of the returned loss):
        each embedding: (N, L, E), L >= 2 layers in order, the last one last; not all layers need be given
        returns: () in units of `loss`, the divergence in nats
    Raises:
        ValueError: here if the temperature is not above 0; when called if shapes do not fit or L is 1.
    Source: Li et al. 2024, https://arxiv.org/abs/2402.14776; the defaults are sentence-transformers'.
    """
    check_positive("adaptive_layer: kl_temperature", kl_temperature)

    def nested(*embeddings: Tensor) -> Tensor:
        num_layers = embeddings[0].shape[1] if embeddings[0].dim() == 3 else 0
        for number, embedding in enumerate(embeddings, start=1):
            wanted = ("N", num_layers or "L", "E")
            check_shape(
                f"adaptive_layer: embedding {number}", embedding, wanted, "texts by layers by dimensions"
            )
        if num_layers < 2:
            raise ValueError(
                "adaptive_layer: embeddings of 1 layer; give the last layer and at least one before it"
            )
        rows = torch.cat(embeddings)  # (N of all columns, L, E)
        target = (rows[:, -1] / kl_temperature).log_softmax(dim=-1).detach()
        total = loss(*(e[:, -1] for e in embeddings))
        for layer in range(num_layers - 1):
            share = prior_layers_weight / (num_layers - 1)
            total = total + share * loss(*(e[:, layer] for e in embeddings))
            student = (rows[:, layer] / kl_temperature).log_softmax(dim=-1)
            divergence = F.kl_div(student, target, reduction="batchmean", log_target=True)
            total = total + kl_weight * kl_temperature * divergence
        return total

    return nested
