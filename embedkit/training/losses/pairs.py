"""Losses of two columns and a label or score for each pair."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from embedkit.training.losses.shapes import Compare, check_bool, check_positive, check_shape


def pair_classification(
    first: Tensor, second: Tensor, classes: Tensor, *, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Cross-entropy of a linear classifier over (u, v, |u - v|), which trains the embeddings with it.

    Shapes:
        first, second: (B, E)
        classes: (B,) long, in [0, C)
        weight: (C, 3 * E)
        bias: (C,)
        returns: () mean over pairs, in nats
    Raises:
        ValueError: the shapes do not fit together.
    Source: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, section 3, classification objective.
    """
    _check_pairs("pair_classification", first, second, classes, "classes")
    wanted = ("C", 3 * first.shape[1])
    check_shape("pair_classification: weight", weight, wanted, "one row a class over (u, v, |u - v|)")
    features = torch.cat([first, second, (first - second).abs()], dim=1)  # (B, 3 * E)
    return F.cross_entropy(F.linear(features, weight, bias), classes)


def cosine_regression(first: Tensor, second: Tensor, scores: Tensor) -> Tensor:
    """Mean squared error between the cosine of each pair and its score.

    Shapes:
        first, second: (B, E)
        scores: (B,) in [-1, 1]; the reader of the data scales and checks them
        returns: () mean over pairs, in squared cosine
    Raises:
        ValueError: the shapes do not fit together.
    Source: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, section 3, regression objective.
    """
    _check_pairs("cosine_regression", first, second, scores, "scores")
    return F.mse_loss(F.cosine_similarity(first, second), scores.to(first.dtype))


def cosent(
    first: Tensor, second: Tensor, scores: Tensor, *, scale: float = 20.0, similarity: Compare | None = None
) -> Tensor:
    """Ask that pairs with a higher score have a higher cosine: log(1 + sum exp(scale * (cos_low - cos_high))).

    The sum runs over all couples of pairs whose scores differ; only the order of the scores matters. `similarity` compares the two of
    each pair, in place of the cosine.

    Shapes:
        first, second: (B, E)
        scores: (B,) of any range
        returns: () of the whole batch, in nats
    Raises:
        ValueError: the shapes do not fit together, or the scale is not above 0.
    Source: Su 2022, https://kexue.fm/archives/8847, the CoSENT objective; the scale 20 is his.
    """
    _check_pairs("cosent", first, second, scores, "scores")
    check_positive("cosent: scale", scale)
    compare = F.cosine_similarity if similarity is None else similarity
    return _in_order(compare(first, second), scores, scale)


def angle(first: Tensor, second: Tensor, scores: Tensor, *, scale: float = 20.0) -> Tensor:
    """Do as CoSENT, over the angle between embeddings read as complex vectors, whose gradient does not saturate.

    The first half of an embedding is the real part, the second half the imaginary; an odd width gets a zero. The
    similarity of two unit vectors z and w is |sum of Re(z̄w) and Im(z̄w) over all dimensions|.
    This is the angle objective alone; the paper adds it to CoSENT and InfoNCE.

    Shapes:
        first, second: (B, E)
        scores: (B,) of any range
        returns: () of the whole batch, in nats
    Raises:
        ValueError: the shapes do not fit together, or the scale is not above 0.
    Source: Li and Li 2023, https://arxiv.org/abs/2309.12871, the angle objective.
    """
    _check_pairs("angle", first, second, scores, "scores")
    check_positive("angle: scale", scale)
    odd = first.shape[1] % 2
    z = F.pad(F.normalize(first, dim=1), (0, odd))
    w = F.pad(F.normalize(second, dim=1), (0, odd))
    z_real, z_imaginary = z.chunk(2, dim=1)  # (B, E / 2) each
    w_real, w_imaginary = w.chunk(2, dim=1)
    real = z_real * w_real + z_imaginary * w_imaginary
    imaginary = z_imaginary * w_real - z_real * w_imaginary
    return _in_order((real + imaginary).sum(dim=1).abs(), scores, scale)


def contrastive(first: Tensor, second: Tensor, alike: Tensor, *, margin: float = 0.5) -> Tensor:
    """Pull pairs that are alike together and push the others at least `margin` apart, in cosine distance d.

    Half of d² for a pair that is alike, half of max(0, margin - d)² for one that is not.

    Shapes:
        first, second: (B, E)
        alike: (B,) bool
        returns: () mean over pairs, in squared cosine distance
    Raises:
        ValueError: the shapes do not fit together, or the margin is not above 0.
        TypeError: `alike` is not bool.
    Source: Hadsell et al. 2006, http://yann.lecun.com/exdb/publis/pdf/hadsell-chopra-lecun-06.pdf, eq. 4.
    """
    distances = _labelled_distances("contrastive", first, second, alike, margin)
    return torch.where(alike, distances.square(), F.relu(margin - distances).square()).mean() / 2


def online_contrastive(first: Tensor, second: Tensor, alike: Tensor, *, margin: float = 0.5) -> Tensor:
    """Contrastive loss over the hard pairs of the batch alone, as a sum and without the half.

    Hard are the pairs that are alike but farther than the nearest one that is not, and the other way round.
    Where the batch lacks one of the kinds, the mean distance of the kind it has takes its place.

    Shapes:
        first, second: (B, E)
        alike: (B,) bool
        returns: () sum over hard pairs, in squared cosine distance
    Raises:
        ValueError: the shapes do not fit together, or the margin is not above 0.
        TypeError: `alike` is not bool.
    Source: the pair selection of sentence-transformers' OnlineContrastiveLoss; it has no paper. The loss is
        Hadsell et al. 2006, eq. 4.
    """
    distances = _labelled_distances("online_contrastive", first, second, alike, margin)
    with torch.no_grad():  # what is hard is a choice, not something to learn
        mean = distances.mean()  # over one kind, if there is only one
        nearest_unlike = torch.where(alike.all(), mean, distances.masked_fill(alike, torch.inf).min())
        farthest_alike = torch.where(alike.any(), distances.masked_fill(~alike, -torch.inf).max(), mean)
        hard_alike = alike & (distances > nearest_unlike)
        hard_unlike = ~alike & (distances < farthest_alike)
    pull = torch.where(hard_alike, distances.square(), 0.0).sum()
    push = torch.where(hard_unlike, F.relu(margin - distances).square(), 0.0).sum()
    return pull + push


def _check_pairs(where: str, first: Tensor, second: Tensor, labels: Tensor, name: str) -> None:
    check_shape(f"{where}: first", first, ("B", "E"), "one embedding a row")
    check_shape(f"{where}: second", second, tuple(first.shape), "row i is the partner of row i of first")
    check_shape(f"{where}: {name}", labels, (len(first),), f"one for each of the {len(first)} pairs")


def _labelled_distances(where: str, first: Tensor, second: Tensor, alike: Tensor, margin: float) -> Tensor:
    _check_pairs(where, first, second, alike, "alike")
    check_bool(f"{where}: alike", alike, "a pair that is alike")
    check_positive(f"{where}: margin", margin)
    return 1 - F.cosine_similarity(first, second)  # (B,)


def _in_order(similarities: Tensor, scores: Tensor, scale: float) -> Tensor:
    """log(1 + sum of exp(scale * (s_j - s_i)) over all i, j with scores_i > scores_j)."""
    differences = scale * (
        similarities[None, :] - similarities[:, None]
    )  # (B, B); row i is taken from column j
    wanted = scores[:, None] > scores[None, :]
    exponents = differences.masked_fill(~wanted, -torch.inf).flatten()
    one = exponents.new_zeros(1)  # e^0 = 1; it also keeps the sum finite where no scores differ
    return torch.cat([one, exponents]).logsumexp(dim=0)
