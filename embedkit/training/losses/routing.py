"""Auxiliary losses of routers: that experts get equally much to do, that scores stay small, that selections are clear.

Each is a sum over the tokens at hand divided by the `count` of the whole batch: the shares of a batch's parts, and of its devices, add
up to the loss of the batch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def load_balance(logits: Tensor, load: Tensor, *, count: float) -> Tensor:
    """E · Σᵢ fᵢ Pᵢ: the share of the choices that expert i got times its mean probability; 1 where all are alike, up to E.

    The load is that of the whole batch and carries no gradient: it is a count.

    With 2 experts, of which the first got 3 of 4 choices at mean probabilities .6 and .4: 2 · (.75 · .6 + .25 · .4) = 1.1.

    Shapes:
        logits: (M, E); load: (E,) choices of each expert in the whole batch; count: tokens of the whole batch
        returns: () this part's share
    Source: Fedus et al. 2021, https://arxiv.org/abs/2101.03961, eq. 4 to 6; for several choices a token fᵢ is a share of all choices.
    """
    share = load / load.sum().clamp(min=1)
    mean = logits.softmax(dim=-1).sum(dim=0) / count
    return logits.shape[-1] * (share.to(mean.dtype) * mean).sum()


def router_z(logits: Tensor, *, count: float) -> Tensor:
    """Return the mean over tokens of (log Σᵢ exp xᵢ)², which keeps a router's scores small.

    Two equal scores of 0: (ln 2)² = .48.

    Shapes:
        logits: (M, E); count: tokens of the whole batch
        returns: () this part's share
    Source: Zoph et al. 2022, https://arxiv.org/abs/2202.08906, eq. 5.
    """
    return logits.logsumexp(dim=-1).square().sum() / count


def clear_selection(logits: Tensor, selected: Tensor, *, count: float) -> Tensor:
    """Cross-entropy of a token's score with whether the recursion took it, so that gates come near 0 and 1.

    Shapes:
        logits: (M,) before the sigmoid; selected: (M,) bool; count: candidates in the whole batch, over all recursions
        returns: () this part's share, in nats
    Source: Bae et al. 2025, https://arxiv.org/abs/2507.10524, section 2.2.1, auxiliary loss of expert-choice routing.
    """
    return F.binary_cross_entropy_with_logits(logits, selected.to(logits.dtype), reduction="sum") / count
