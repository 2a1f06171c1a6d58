"""Cross-entropy over a whole vocabulary, some rows at a time: the logits of a batch, often its largest tensor, are never there at once.

The gradient is computed together with the loss, while a group's logits are at hand.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

GROUP_LOGITS = 2**23  # at a time: 32 MiB in fp32


def vocabulary_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    group_logits: int = GROUP_LOGITS,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return, summed over N tokens, the smoothed loss, the negative log-likelihood in nats, and how many were the likeliest.

    Smoothing ε puts ε / V on each token of the vocabulary and the rest on the target. Only the loss has a gradient.

    Shapes:
        hidden: (N, D); weight: (V, D); bias: (V,); targets: (N,) long, negative where nothing is to be predicted
        returns: three of ()
    Source: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7.
    """
    # Looked up, not decided within: there autograd is off.
    wants = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    found: tuple[Tensor, Tensor, Tensor] = _VocabularyLoss.apply(  # type: ignore[no-untyped-call] # torch leaves it untyped
        hidden, weight, bias, targets, smoothing, (wants, group_logits)
    )
    return found


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    # Any: the context of torch's own functions is untyped
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        how: tuple[bool, int],  # whether gradients are wanted; logits at a time
    ) -> tuple[Tensor, Tensor, Tensor]:
        wants, group_logits = how
        kept = targets >= 0
        sums = hidden.new_zeros(3, dtype=torch.promote_types(hidden.dtype, torch.float32))
        of_hidden = torch.zeros_like(hidden) if wants else None
        of_weight = torch.zeros_like(weight) if wants else None
        of_bias = torch.zeros_like(bias) if wants and bias is not None else None
        size = max(1, group_logits // len(weight))
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
            logits = F.linear(hidden[rows], weight, bias)
            logits = logits.to(sums.dtype)
            real, target = kept[rows], targets[rows].clamp(min=0)[:, None]
            total = logits.logsumexp(dim=1)
            own = logits.gather(1, target)[:, 0]
            loss = total - (1 - smoothing) * own - smoothing * logits.mean(dim=1)
            right = logits.argmax(dim=1) == target[:, 0]
            sums += torch.stack([loss[real].sum(), (total - own)[real].sum(), right[real].sum()])
            if of_hidden is None or of_weight is None:
                continue
            gradient = logits.sub_(total[:, None]).exp_()  # the probabilities
            gradient.sub_(smoothing / len(weight))
            gradient.scatter_add_(1, target, gradient.new_full(target.shape, smoothing - 1))
            gradient.mul_(real[:, None])
            of_hidden[rows] = (gradient @ weight).to(of_hidden.dtype)
            of_weight += gradient.mT @ hidden[rows]
            if of_bias is not None:
                of_bias += gradient.sum(dim=0)
        ctx.save_for_backward(of_hidden, of_weight, of_bias)
        loss_sum, log_likelihood, right_sum = (each.clone() for each in sums)
        ctx.mark_non_differentiable(log_likelihood, right_sum)
        return loss_sum, log_likelihood, right_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        found = (None if each is None else each * gradient for each in ctx.saved_tensors)
        return (*found, None, None, None)
