"""Triplet losses: of given triplets, and of those that a labelled batch holds (all, hard, semi-hard)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from embedkit.training.losses.shapes import Compare, check_shape

Distance = Literal["euclidean", "cosine"]
SOFT = "soft"


def triplet(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    margin: float | Literal["soft"] = 5.0,
    distance: Distance = "euclidean",
    similarity: Compare | None = None,
) -> Tensor:
    """Ask that an anchor be nearer to its positive than to its negative by `margin`: max(0, d_p - d_n + margin).

    The margin "soft" takes log(1 + exp(d_p - d_n)) instead, which has no flat part. `similarity`, of anchors with partners, less its
    sign, stands in place of the distance.

    Shapes:
        anchors, positives, negatives: (B, E)
        returns: () mean over triplets, in units of the distance (nats if soft)
    Raises:
        ValueError: the shapes differ.
    Source: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, section 3, triplet objective (their margin
        is 1; the default of 5, as in sentence-transformers, is for vectors that are not normalized); soft: Hermans
        et al. 2017, https://arxiv.org/abs/1703.07737, section 2.
    """
    check_shape("triplet: anchors", anchors, ("B", "E"), "one embedding a row")
    check_shape("triplet: positives", positives, tuple(anchors.shape), "row i belongs to anchor i")
    check_shape("triplet: negatives", negatives, tuple(anchors.shape), "row i belongs to anchor i")
    if similarity is not None:
        return _hinge(similarity(anchors, negatives) - similarity(anchors, positives), margin).mean()
    near = _distances(anchors, positives, distance)
    far = _distances(anchors, negatives, distance)
    return _hinge(near - far, margin).mean()


def batch_all_triplet(
    embeddings: Tensor, labels: Tensor, *, margin: float = 5.0, distance: Distance = "euclidean"
) -> Tensor:
    """Average the hinge over all triplets of the batch that still violate the margin.

    Shapes:
        embeddings: (B, E)
        labels: (B,) whole numbers; equal means positive
        returns: () mean over the triplets above zero, in units of the distance
    Raises:
        ValueError: the shapes do not fit, or no anchor has both a positive and a negative.
    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737, eq. 6 ("batch all"), mean over the non-zero terms.
    """
    same, other = _masks("batch_all_triplet", embeddings, labels)
    matrix = _distance_matrix(embeddings, distance)  # (B, B)
    anchors, positives = same.nonzero(as_tuple=True)  # (P,) each: B x B x B would be mostly empty
    losses = F.relu(matrix[anchors, positives].unsqueeze(1) - matrix[anchors] + margin)  # (P, B)
    losses = losses.masked_fill(~other[anchors], 0.0)
    return losses.sum() / (losses > 0).sum().clamp(min=1)


def batch_hard_triplet(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float | Literal["soft"] = 5.0,
    distance: Distance = "euclidean",
) -> Tensor:
    """Take for each anchor its farthest positive and its nearest negative.

    Anchors that lack either are left out of the mean. The margin "soft" is that of `triplet`.

    Shapes:
        embeddings: (B, E)
        labels: (B,) whole numbers; equal means positive
        returns: () mean over anchors, in units of the distance (nats if soft)
    Raises:
        ValueError: the shapes do not fit, or no anchor has both a positive and a negative.
    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737, eq. 5 ("batch hard").
    """
    same, other = _masks("batch_hard_triplet", embeddings, labels)
    matrix = _distance_matrix(embeddings, distance)
    usable = same.any(dim=1) & other.any(dim=1)
    farthest_positive = matrix.masked_fill(~same, -torch.inf).amax(dim=1)[usable]
    nearest_negative = matrix.masked_fill(~other, torch.inf).amin(dim=1)[usable]
    return _hinge(farthest_positive - nearest_negative, margin).mean()


def batch_semi_hard_triplet(
    embeddings: Tensor, labels: Tensor, *, margin: float = 5.0, distance: Distance = "euclidean"
) -> Tensor:
    """Take for each anchor and positive the nearest negative that is farther than the positive.

    Where there is none, the anchor's farthest negative stands in.

    Shapes:
        embeddings: (B, E)
        labels: (B,) whole numbers; equal means positive
        returns: () mean over pairs of anchor and positive, in units of the distance
    Raises:
        ValueError: the shapes do not fit, or no anchor has both a positive and a negative.
    Source: Schroff et al. 2015, https://arxiv.org/abs/1503.03832, section 3.2, eq. 4.
    """
    same, other = _masks("batch_semi_hard_triplet", embeddings, labels)
    matrix = _distance_matrix(embeddings, distance)
    negatives = matrix.masked_fill(~other, torch.inf).sort(dim=1).values  # (B, B), nearest first
    farther = torch.searchsorted(negatives.detach(), matrix.detach(), right=True)  # first one strictly beyond
    semi_hard = negatives.gather(1, farther.clamp(max=len(matrix) - 1))  # inf where there is none
    farthest = matrix.masked_fill(~other, -torch.inf).amax(dim=1, keepdim=True)  # (B, 1)
    chosen = torch.where(semi_hard.isinf(), farthest, semi_hard)
    pairs = same & other.any(dim=1, keepdim=True)
    return F.relu(matrix - chosen + margin)[pairs].mean()


def _hinge(excess: Tensor, margin: float | Literal["soft"]) -> Tensor:
    return F.softplus(excess) if margin == SOFT else F.relu(excess + float(margin))


def _distances(first: Tensor, second: Tensor, distance: Distance) -> Tensor:
    """Return the distance of each row to its partner, (B,)."""
    if distance == "cosine":
        return 1 - F.cosine_similarity(first, second)
    return _root((first - second).square().sum(dim=1))


def _distance_matrix(embeddings: Tensor, distance: Distance) -> Tensor:
    """Return the distances of all rows to all rows, (B, B)."""
    if distance == "cosine":
        unit = F.normalize(embeddings, dim=1)
        return 1 - unit @ unit.T
    products = embeddings @ embeddings.T
    squares = products.diagonal()
    return _root((squares[:, None] - 2 * products + squares[None, :]).clamp(min=0))


def _root(squares: Tensor) -> Tensor:
    """Take the square root, with the gradient 0 at 0 instead of an infinite one."""
    zero = squares == 0
    return squares.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def _masks(where: str, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, B) bool: the positives of each anchor (itself left out), and its negatives."""
    check_shape(f"{where}: embeddings", embeddings, ("B", "E"), "one embedding a row")
    check_shape(
        f"{where}: labels", labels, (len(embeddings),), f"one for each of the {len(embeddings)} embeddings"
    )
    equal = labels[:, None] == labels[None, :]
    same = equal & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    if not bool((same.any(dim=1) & ~equal.all(dim=1)).any()):
        raise ValueError(
            f"{where}: {len(labels)} texts with {len(set(labels.tolist()))} distinct labels make no triplet; it takes two "
            "texts of one label and one of another. Draw batches with several texts a label"
        )
    return same, ~equal
