"""Losses that teach with another model's embeddings or scores; those over scores serve encoders and rerankers alike."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from embedkit.training.losses.shapes import check_bool, check_positive, check_shape


def embedding_mse(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Mean squared error between the student's embeddings and the teacher's.

    Shapes:
        embeddings, teacher_embeddings: (N, E)
        returns: () mean over rows and dimensions
    Raises:
        ValueError: the shapes differ, as with a teacher of another dimension.
    Source: Reimers and Gurevych 2020, https://arxiv.org/abs/2004.09813, eq. 1.
    """
    check_shape("embedding_mse: embeddings", embeddings, ("N", "E"), "one embedding a row")
    check_shape(
        "embedding_mse: teacher_embeddings",
        teacher_embeddings,
        tuple(embeddings.shape),
        "as the student's; project a teacher of another dimension first (PCA), or give the student a dense layer",
    )
    return F.mse_loss(embeddings, teacher_embeddings.detach().to(embeddings.dtype))


def cosine_distance(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """1 - cosine between the student's embeddings and the teacher's.

    Shapes:
        embeddings, teacher_embeddings: (N, E)
        returns: () mean over rows
    Raises:
        ValueError: the shapes differ.
    """
    check_shape("cosine_distance: embeddings", embeddings, ("N", "E"), "one embedding a row")
    shape = tuple(embeddings.shape)
    check_shape("cosine_distance: teacher_embeddings", teacher_embeddings, shape, "as the student's")
    targets = teacher_embeddings.detach().to(embeddings.dtype)
    return (1 - F.cosine_similarity(embeddings, targets)).mean()


def similarity_distillation(
    embeddings: Tensor, teacher_embeddings: Tensor, bank: Tensor, *, temperature: float = 0.05
) -> Tensor:
    """Cross-entropy between the teacher's and the student's similarities to a bank of the teacher's embeddings.

    Each text's cosines to the bank become a distribution by softmax at `temperature`: the teacher's is the target, and the student's
    is that of its own embedding. Unlike similarities among the student's own embeddings, no text's value depends on which others are
    computed with it. What the teacher's distribution itself is uncertain by (its entropy) is taken off, so 0 is the least.

    Shapes:
        embeddings, teacher_embeddings: (N, E)
        bank: (M, E), which may hold the teacher_embeddings
        returns: () mean over rows
    Raises:
        ValueError: the shapes differ, or the temperature is not above 0.
    Source: Fang et al. 2021 (SEED), https://arxiv.org/abs/2101.04731, eq. 4, with the batch as the bank.
    """
    check_positive("similarity_distillation: temperature", temperature)
    check_shape("similarity_distillation: embeddings", embeddings, ("N", "E"), "one embedding a row")
    shape = tuple(embeddings.shape)
    check_shape("similarity_distillation: teacher_embeddings", teacher_embeddings, shape, "as the student's")
    check_shape("similarity_distillation: bank", bank, ("M", shape[1]), "as long as the student's")
    bank = F.normalize(bank.detach().to(embeddings.dtype), dim=1)
    target, own = (
        F.log_softmax(F.normalize(each, dim=1) @ bank.T / temperature, dim=1)
        for each in (teacher_embeddings.detach().to(embeddings.dtype), embeddings)
    )
    return F.kl_div(own, target, reduction="batchmean", log_target=True)


def margin_mse(
    positive_scores: Tensor, negative_scores: Tensor, teacher_margins: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    """Mean squared error between the student's and the teacher's margins, score of positive minus score of negative.

    Shapes:
        positive_scores: (B,)
        negative_scores, teacher_margins: (B, N)
        mask: (B, N) bool, True for a real negative
        returns: () mean over margins, in squared units of the scores
    Raises:
        ValueError: the shapes do not fit together.
        TypeError: the mask is not bool.
    Source: Hofstätter et al. 2020, https://arxiv.org/abs/2010.02666, the Margin-MSE loss.
    """
    check_shape("margin_mse: positive_scores", positive_scores, ("B",), "one positive a query")
    wanted = (len(positive_scores), "N")
    check_shape("margin_mse: negative_scores", negative_scores, wanted, "one row of negatives a query")
    shape = tuple(negative_scores.shape)
    check_shape("margin_mse: teacher_margins", teacher_margins, shape, "one margin for each negative")
    margins = positive_scores.unsqueeze(1) - negative_scores
    targets = teacher_margins.detach().to(margins.dtype)
    if mask is None:
        return F.mse_loss(margins, targets)
    check_shape("margin_mse: mask", mask, shape, "one for each negative")
    check_bool("margin_mse: mask", mask, "a real negative")
    return F.mse_loss(margins[mask], targets[mask])


def kl_of_margins(positive_scores: Tensor, negative_scores: Tensor, teacher_margins: Tensor) -> Tensor:
    """Kullback-Leibler divergence as `kl_distillation`, of a positive and its negatives from a teacher's margins.

    Shapes:
        positive_scores: (B,)
        negative_scores, teacher_margins: (B, N), the margin NaN where there is no negative
        returns: () mean over queries, in nats
    Raises:
        ValueError: the shapes do not fit together.
    """
    check_shape("kl_of_margins: positive_scores", positive_scores, ("B",), "one positive a query")
    wanted = (len(positive_scores), "N")
    check_shape("kl_of_margins: negative_scores", negative_scores, wanted, "one row of negatives a query")
    shape = tuple(negative_scores.shape)
    check_shape("kl_of_margins: teacher_margins", teacher_margins, shape, "one margin for each negative")
    scores = torch.cat([positive_scores[:, None], negative_scores], dim=1)  # (B, 1 + N)
    # Only differences of the teacher's scores count: that of the positive is taken as 0.
    teacher = F.pad(-teacher_margins.nan_to_num(), (1, 0))
    return kl_distillation(scores, teacher, mask=F.pad(~teacher_margins.isnan(), (1, 0), value=True))


def kl_distillation(
    scores: Tensor, teacher_scores: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Kullback-Leibler divergence of the student's softmax over candidates from the teacher's.

    It is multiplied by the temperature squared, so that its gradient keeps its size as the temperature grows.

    Shapes:
        scores, teacher_scores: (B, N), N >= 2
        mask: (B, N) bool, True for a real candidate; each row has at least one
        returns: () mean over queries, in nats (times temperature squared)
    Raises:
        ValueError: the shapes do not fit, there is only one candidate, or the temperature is not above 0.
        TypeError: the mask is not bool.
    Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2.
    """
    check_shape("kl_distillation: scores", scores, ("B", "N"), "one row of candidates a query")
    shape = tuple(scores.shape)
    check_shape(
        "kl_distillation: teacher_scores", teacher_scores, shape, "one for each of the student's scores"
    )
    check_positive("kl_distillation: temperature", temperature)
    if shape[1] < 2:
        raise ValueError(
            "kl_distillation: 1 candidate a query; the softmax over a single one is always 1, so give at least 2"
        )
    targets = teacher_scores.detach().to(scores.dtype) / temperature
    student = scores / temperature
    if mask is not None:
        check_shape("kl_distillation: mask", mask, shape, "one for each score")
        check_bool("kl_distillation: mask", mask, "a real candidate")
        targets = targets.masked_fill(~mask, -torch.inf)
        student = student.masked_fill(~mask, -torch.inf)
    log_p = targets.log_softmax(dim=1)
    log_q = student.log_softmax(dim=1)
    terms = log_p.exp() * (log_p - log_q)  # (B, N)
    if mask is not None:
        terms = terms.masked_fill(~mask, 0.0)
    return terms.sum() / len(scores) * temperature**2
