"""Losses over scores, for rerankers: of single pairs, of one positive among negatives, of ranked lists.

A list has a row of `scores` and a row of `relevance` (0 or more, higher is better); `mask` is True for real
candidates and False for the padding of shorter lists.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from embedkit.training.losses.shapes import check_bool, check_positive, check_shape


def binary_cross_entropy(scores: Tensor, labels: Tensor, *, positive_weight: float = 1.0) -> Tensor:
    """Cross-entropy of the sigmoid of each score with its label.

    `positive_weight` multiplies the positives' share, for data with k negatives a positive (then k is usual).

    Shapes:
        scores: (B,) before the sigmoid
        labels: (B,) in [0, 1]; the reader of the data checks them
        returns: () mean over pairs, in nats
    Raises:
        ValueError: the shapes differ, or the weight is not above 0.
    Source: Nogueira and Cho 2019, https://arxiv.org/abs/1901.04085, section 3.
    """
    check_shape("binary_cross_entropy: scores", scores, ("B",), "one score a pair")
    check_shape("binary_cross_entropy: labels", labels, tuple(scores.shape), "one for each score")
    check_positive("binary_cross_entropy: positive_weight", positive_weight)
    weight = scores.new_tensor(positive_weight)
    return F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype), pos_weight=weight)


def score_mse(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error between the score of each pair and its label.

    Shapes:
        scores, labels: (B,)
        returns: () mean over pairs, in squared units of the labels
    Raises:
        ValueError: the shapes differ.
    """
    check_shape("score_mse: scores", scores, ("B",), "one score a pair")
    check_shape("score_mse: labels", labels, tuple(scores.shape), "one for each score")
    return F.mse_loss(scores, labels.to(scores.dtype))


def class_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of the softmax over classes of each pair.

    Shapes:
        logits: (B, C)
        classes: (B,) whole numbers in [0, C)
        returns: () mean over pairs, in nats
    Raises:
        ValueError: the shapes do not fit together.
    """
    check_shape("class_cross_entropy: logits", logits, ("B", "C"), "one row over the classes a pair")
    check_shape("class_cross_entropy: classes", classes, (len(logits),), "one for each row of logits")
    return F.cross_entropy(logits, classes.long())


def softmax_cross_entropy(scores: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy of the softmax over one positive, in column 0, and its negatives.

    Shapes:
        scores: (B, 1 + N)
        mask: (B, 1 + N) bool, True for a real candidate
        returns: () mean over queries, in nats
    Raises:
        ValueError: there is no negative, or the shapes differ.
        TypeError: the mask is not bool.
    Source: Gao et al. 2021, https://arxiv.org/abs/2101.08751, localized contrastive estimation.
    """
    scores = _masked("softmax_cross_entropy", scores, mask)
    return F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))


def ranknet(scores: Tensor, relevance: Tensor, *, mask: Tensor | None = None, sigma: float = 1.0) -> Tensor:
    """Logistic loss log(1 + exp(-sigma * (s_i - s_j))) of each two candidates of a list with relevance i > j.

    Shapes:
        scores, relevance: (B, N)
        mask: (B, N) bool, True for a real candidate
        returns: () mean over such pairs of all lists, in nats; 0 where there is none
    Raises:
        ValueError: there is only one candidate, the shapes differ, or sigma is not above 0.
        TypeError: the mask is not bool.
    Source: Burges et al. 2005, https://doi.org/10.1145/1102351.1102363, eq. 3.
    """
    _check_lists("ranknet", scores, relevance, sigma)
    _masked("ranknet", scores, mask)
    preferred = _preferred(relevance, mask)
    return _mean_over_pairs(_pair_losses(scores, sigma), preferred)


def listnet(scores: Tensor, relevance: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy between the softmax of the relevance and that of the scores (top-one probabilities).

    Shapes:
        scores, relevance: (B, N)
        mask: (B, N) bool, True for a real candidate; each row has at least one
        returns: () mean over lists, in nats
    Raises:
        ValueError: there is only one candidate, or the shapes differ.
        TypeError: the mask is not bool.
    Source: Cao et al. 2007, https://doi.org/10.1145/1273496.1273513, top-one cross-entropy.
    """
    _check_lists("listnet", scores, relevance)
    log_probabilities = _masked("listnet", scores, mask).log_softmax(dim=1)
    targets = _masked("listnet", relevance.to(scores.dtype), mask).softmax(dim=1)
    if mask is not None:
        log_probabilities = log_probabilities.masked_fill(~mask, 0.0)
    return -(targets * log_probabilities).sum(dim=1).mean()


def listmle(scores: Tensor, relevance: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of the order by relevance, drawn one by one without replacement from the scores.

    Candidates of equal relevance stand in the order given, so shuffle them first.

    Shapes:
        scores, relevance: (B, N)
        mask: (B, N) bool, True for a real candidate
        returns: () mean over lists of the sum over places, in nats
    Raises:
        ValueError: there is only one candidate, or the shapes differ.
        TypeError: the mask is not bool.
    Source: Xia et al. 2008, https://doi.org/10.1145/1390156.1390306, the likelihood loss.
    """
    _check_lists("listmle", scores, relevance)
    real = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    _masked("listmle", scores, mask)
    order = (
        relevance.to(scores.dtype).masked_fill(~real, -torch.inf).argsort(dim=1, descending=True, stable=True)
    )
    real = real.gather(1, order)  # padding now last
    # The lowest finite number rather than -inf: the difference below would be NaN, if an unused one.
    ordered = scores.gather(1, order).masked_fill(~real, torch.finfo(scores.dtype).min)
    remaining = ordered.flip(1).logcumsumexp(dim=1).flip(1)  # over this place and all later ones
    return torch.where(real, remaining - ordered, 0.0).sum(dim=1).mean()


def lambda_loss(
    scores: Tensor,
    relevance: Tensor,
    *,
    mask: Tensor | None = None,
    k: int | None = None,
    mu: float = 10.0,
    sigma: float = 1.0,
) -> Tensor:
    """RankNet with each pair weighted by what it is worth in nDCG at the current ranks (nDCG-Loss2++).

    A pair weighs |G_i - G_j| * (mu * delta_ij + |1/D_i - 1/D_j|) with gains G = (2^relevance - 1) / maxDCG@k,
    discounts D = log2(1 + rank) and delta_ij = |1/D(|i - j|) - 1/D(|i - j| + 1)| over ranks i and j; mu = 0 is
    LambdaRank. With `k`, pairs with neither candidate in the top k do not count.

    Shapes:
        scores, relevance: (B, N); relevance 0 or more
        mask: (B, N) bool, True for a real candidate
        returns: () mean over pairs of all lists, in weighted nats; 0 where there is none
    Raises:
        ValueError: there is only one candidate, the shapes differ, or sigma or k is not above 0.
        TypeError: the mask is not bool.
    Source: Wang et al. 2018, https://doi.org/10.1145/3269206.3271784, NDCG-Loss2++ (mu = 10 is theirs); in nats
        where the paper counts bits, and a mean over pairs where it sums.
    """
    _check_lists("lambda_loss", scores, relevance, sigma)
    ranked_scores = _masked("lambda_loss", scores, mask)
    if k is not None:
        check_positive("lambda_loss: k", k)
    num_candidates = scores.shape[1]
    with torch.no_grad():  # ranks and weights are constants of a step (the paper's expectation step)
        gains = torch.exp2(relevance.to(scores.dtype)) - 1
        if mask is not None:
            gains = gains.masked_fill(~mask, 0.0)
        order = ranked_scores.argsort(dim=1, descending=True, stable=True)
        ranks = order.argsort(dim=1).to(scores.dtype) + 1  # (B, N)
        best = gains.sort(dim=1, descending=True).values[:, :k]
        places = torch.arange(1, best.shape[1] + 1, device=scores.device, dtype=scores.dtype)
        max_dcg = (best / torch.log2(1 + places)).sum(dim=1, keepdim=True)  # (B, 1)
        gains = gains / max_dcg.clamp(min=torch.finfo(scores.dtype).tiny)
        inverse = 1 / torch.log2(1 + ranks)
        # (B, N, N); on the diagonal, which never counts, 1 keeps the logarithm above 0
        apart = (ranks[:, :, None] - ranks[:, None, :]).abs().clamp(min=1)
        delta = 1 / torch.log2(1 + apart) - 1 / torch.log2(2 + apart)
        weights = mu * delta + (inverse[:, :, None] - inverse[:, None, :]).abs()
        weights = weights * (gains[:, :, None] - gains[:, None, :]).abs()
        counted = _preferred(relevance, mask)
        top = ranks <= (num_candidates if k is None else k)
        counted = counted & (top[:, :, None] | top[:, None, :])
    return _mean_over_pairs(weights * _pair_losses(scores, sigma), counted)


def _check_lists(where: str, scores: Tensor, relevance: Tensor, sigma: float = 1.0) -> None:
    check_shape(f"{where}: scores", scores, ("B", "N"), "one row of candidates a query")
    check_shape(f"{where}: relevance", relevance, tuple(scores.shape), "one for each score")
    check_positive(f"{where}: sigma", sigma)


def _masked(where: str, scores: Tensor, mask: Tensor | None) -> Tensor:
    """Check a list of scores and its mask, and return the scores with padding at minus infinity."""
    check_shape(f"{where}: scores", scores, ("B", "N"), "one row of candidates a query")
    if scores.shape[1] < 2:
        raise ValueError(f"{where}: 1 candidate a query; there is nothing to rank, so give at least 2")
    if mask is None:
        return scores
    check_shape(f"{where}: mask", mask, tuple(scores.shape), "one for each score")
    check_bool(f"{where}: mask", mask, "a real candidate")
    return scores.masked_fill(~mask, -torch.inf)


def _preferred(relevance: Tensor, mask: Tensor | None) -> Tensor:
    """Return (B, N, N) bool: candidates i and j are real, and i is more relevant than j."""
    preferred = relevance[:, :, None] > relevance[:, None, :]
    if mask is not None:
        preferred = preferred & mask[:, :, None] & mask[:, None, :]
    return preferred


def _pair_losses(scores: Tensor, sigma: float) -> Tensor:
    return F.softplus(-sigma * (scores[:, :, None] - scores[:, None, :]))  # (B, N, N)


def _mean_over_pairs(losses: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)
