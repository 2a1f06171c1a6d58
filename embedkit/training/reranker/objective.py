"""From the logits of candidates to one number: the loss of lists, and how well they are ranked."""

from __future__ import annotations

import torch
from torch import Tensor

from embedkit.training.loss import Loss
from embedkit.training.reranker.list_batches import ListBatch
from embedkit.training.reranker.recipe import RerankerRecipe


def list_loss(logits: Tensor, part: ListBatch, loss: Loss, recipe: RerankerRecipe) -> Tensor:
    """Return the mean loss of some lists.

    Shapes:
        logits: (P, C) of the lists' P real candidates in their order
        returns: ()
    """
    real = torch.from_numpy(part.candidates >= 0).to(logits.device)  # (B, K)
    relevance = torch.from_numpy(part.relevance).to(logits.device)
    keywords = {name: getattr(recipe, value) for name, value in loss.keywords.items()}
    if loss.takes == "class logits":
        return loss.function(logits, relevance[real], **keywords)
    flat = logits[:, 0]
    if loss.takes == "single scores":
        return loss.function(flat, relevance[real], **keywords)
    scores = torch.zeros(real.shape, device=logits.device).masked_scatter(real, flat)
    if loss.takes == "one positive":
        return loss.function(scores, mask=real, **keywords)
    if loss.takes == "margins":
        margins = relevance[:, :1] - relevance[:, 1:]
        return loss.function(scores[:, 0], scores[:, 1:], margins, mask=real[:, 1:], **keywords)
    return loss.function(scores, relevance, mask=real, **keywords)


def quality(logits: Tensor, part: ListBatch, loss: Loss, *, count: int) -> dict[str, Tensor]:
    """Return the lists' share, of `count`, of the accuracy (classes) or of the mean reciprocal rank (lists of several).

    Shapes:
        logits: (P, C), as for `list_loss`
    """
    real = torch.from_numpy(part.candidates >= 0).to(logits.device)
    relevance = torch.from_numpy(part.relevance).to(logits.device)
    if loss.takes == "class logits":
        return {"accuracy": (logits.argmax(dim=1) == relevance[real]).sum() / count}
    if real.shape[1] < 2:
        return {}
    scores = torch.full(real.shape, -torch.inf, device=logits.device).masked_scatter(real, logits[:, 0])
    best = relevance.masked_fill(~real, -torch.inf).argmax(dim=1, keepdim=True)
    # An equal score counts as half before: a model that gives all the same gains nothing by the order of the data.
    mine = scores.gather(1, best)
    rank = 0.5 + (scores > mine).sum(dim=1) + 0.5 * (scores == mine).sum(dim=1)
    return {"mrr": (1 / rank).sum() / count}
