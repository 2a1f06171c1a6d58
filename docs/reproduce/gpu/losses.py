"""What a student's vectors lose against the teacher's: cosine, similarities in the batch, contrast; each a mean over rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.04  # of the similarities
CONTRAST_SCALE = 20.0  # 1 / temperature of the contrast
SAME = 0.97  # a text whose teacher cosine exceeds this share of the right one's is no negative
FEWEST = 8  # rows that similarities are compared of
MASKED = -1e4
SHORTER = (256, 128, 64)  # dimensions that are trained to serve alone
SHORTER_SHARE = 0.2


@dataclass(frozen=True)
class LossWeights:
    cosine: float
    similarities: float = 0.0
    contrast: float = 0.0


def distillation_loss(
    student: Tensor, teacher: Tensor, axes: Tensor, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add up the losses of a batch; also return each by itself, detached.

    The first 256, 128 and 64 dimensions lose likewise, with a fifth of the weight (Kusupati et al. 2022, Matryoshka Representation
    Learning, https://arxiv.org/abs/2205.13147, eq. 1).

    Shapes:
        student: (n, c, D) unit length, c = 2 for pairs, 1 for single texts
        teacher: (n, c, E) unit length
        axes: (D, E) orthonormal rows
        returns: ()
    """
    target = F.normalize(teacher @ axes.T, dim=-1)
    cosine = (1 - (student * target).sum(-1)).mean()
    loss, parts = weights.cosine * cosine, {"cosine": cosine.detach()}
    if len(student) < FEWEST:
        return loss, parts
    paired = student.shape[1] == 2
    wanted = teacher[:, 0] @ teacher[:, -1].T  # (n, n)
    width = student.shape[-1]
    for size, share in ((width, 1.0), *((size, SHORTER_SHARE) for size in SHORTER if size < width)):
        first, second = (F.normalize(student[:, side, :size], dim=-1) for side in (0, -1))
        given = first @ second.T
        if weights.similarities:
            lost = similarity_loss(given, wanted, paired=paired)
            loss = loss + weights.similarities * share * lost
            parts.setdefault("similarities", lost.detach())
        if weights.contrast and paired:
            lost = guided_contrast(given, wanted)
            loss = loss + weights.contrast * share * lost
            parts.setdefault("contrast", lost.detach())
    return loss, parts


def similarity_loss(
    given: Tensor, wanted: Tensor, *, paired: bool, temperature: float = TEMPERATURE
) -> Tensor:
    """KL divergence of the student's softmax over the batch from the teacher's: (n, n) twice -> (), in nats.

    For pairs it is the mean over both directions; of single texts the cosine of each to itself is left out.
    Source: Fang et al. 2021, SEED, https://arxiv.org/abs/2101.04731, eq. 4, over the batch instead of a queue.
    """
    if paired:
        return 0.5 * (_divergence(given, wanted, temperature) + _divergence(given.T, wanted.T, temperature))
    own = torch.eye(len(given), dtype=torch.bool, device=given.device)
    return _divergence(given.masked_fill(own, MASKED), wanted.masked_fill(own, MASKED), temperature)


def _divergence(given: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    target, found = ((each / temperature).log_softmax(1) for each in (wanted, given))
    return (target.exp() * (target - found)).sum(1).mean()


def guided_contrast(given: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy in both directions, without the negatives that the teacher finds as near as the right one: (n, n) twice -> ().

    Source: Solatorio 2024, GISTEmbed, https://arxiv.org/abs/2402.16829, section 3, with the teacher as the guide and a share of its cosine.
    """
    own = wanted.diagonal()
    others = ~torch.eye(len(given), dtype=torch.bool, device=given.device)
    labels = torch.arange(len(given), device=given.device)
    logits = CONTRAST_SCALE * given
    by_row = logits.masked_fill((wanted > SAME * own[:, None]) & others, MASKED)
    by_column = logits.masked_fill((wanted > SAME * own[None]) & others, MASKED)
    return 0.5 * (F.cross_entropy(by_row, labels) + F.cross_entropy(by_column.T, labels))
