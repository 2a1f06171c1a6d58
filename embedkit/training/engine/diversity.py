"""A penalty that makes the heads of attention, or the aspects of a pooling, look at different tokens: ‖AAᵀ - I‖².

Source: Lin et al. 2017, https://arxiv.org/abs/1703.03130, section 2.2, for aspects; of heads, A holds what each makes of one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from embedkit.errors import TrainingError
from embedkit.model.attention_form import AttentionForm
from embedkit.model.attention_pooling import AttentionPooling
from embedkit.model.encoder import TransformerEncoder


class DiversityPenalty:
    """Collects what the parts of a model in training append of each row: tokens for heads, sentences for aspects.

    1. `clear` before a forward pass: what a pass left that was computed again for its gradient goes.
    2. `take` after it, and before its gradient.
    """

    def __init__(
        self, parts: Sequence[AttentionForm | AttentionPooling], *, weight: float, passes: int
    ) -> None:
        """In a forward pass rows are gone through `passes` times, by layer after layer."""
        self.weight, self._passes = weight, passes
        self._found: list[Tensor] = []
        for part in parts:
            part.watched = self._found

    def clear(self) -> None:
        self._found.clear()

    def take(self, count: int) -> Tensor:
        """Return the sum over the first `count` rows of the mean over all passes: ()."""
        rows = torch.cat(self._found).view(self._passes, -1)[:, :count]  # behind them is what only fills up
        self._found.clear()
        return rows.sum() / self._passes


def watch_heads(encoder: TransformerEncoder, weight: float) -> DiversityPenalty | None:
    """Watch the heads of every layer; None where the weight is 0.

    Raises:
        TrainingError: their attention has no weights that could be compared.
    """
    if not weight:
        return None
    if encoder.config.attention == "random_features":
        raise TrainingError(
            "head_diversity compares the weights of attention, and random-feature attention forms none. Set it to 0"
        )
    recursion = encoder.config.recursion
    if recursion is not None and recursion.routed:
        raise TrainingError(
            f"head_diversity is a mean over all tokens in every layer, and with recursion by {recursion.routing} some tokens leave out "
            "some layers. Set it to 0, or model.recursion.routing to fixed"
        )
    forms = [module for module in encoder.modules() if isinstance(module, AttentionForm)]
    return DiversityPenalty(forms, weight=weight, passes=encoder.config.num_hidden_layers)


def attached(vectors: Tensor, term: Tensor) -> Tensor:
    """Return the vectors as they are; whatever goes backward through them takes the gradient of `term`, (), with it.

    So a term of a part of a batch comes along with the gradients of the batch's loss, cached ones too.
    """
    result: Tensor = _Attached.apply(vectors, term)  # type: ignore[no-untyped-call] # torch leaves it untyped
    return result


class _Attached(torch.autograd.Function):
    @staticmethod
    # Any: the context of torch's own functions is untyped
    def forward(ctx: Any, vectors: Tensor, term: Tensor) -> Tensor:
        ctx.save_for_backward(term)
        return vectors.view_as(vectors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (term,) = ctx.saved_tensors
        return gradient, torch.ones_like(term)


def watch_aspects(pooling: nn.Module | None, weight: float, *, passes: int) -> DiversityPenalty | None:
    """Watch the aspects of a pooling by attention; None where the weight is 0.

    Raises:
        TrainingError: there is no such pooling, or it has a single aspect.
    """
    if not weight:
        return None
    if not isinstance(pooling, AttentionPooling) or pooling.config.aspects == 1:
        raise TrainingError(
            "loss.aspect_diversity makes the aspects of a pooling by attention differ, and there are none. "
            "Set head.pooling=attention and head.aspects=4, or leave it out"
        )
    return DiversityPenalty([pooling], weight=weight, passes=passes)
