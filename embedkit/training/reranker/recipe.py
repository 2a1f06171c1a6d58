"""The recipe of `embedkit train reranker`, and which loss fits which data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from embedkit.errors import TrainingError
from embedkit.recipe import OneOf
from embedkit.training import loss_table
from embedkit.training.engine.recipes import (
    LoraRecipe,
    OptimRecipe,
    RoutingRecipe,
    RunRecipe,
    check_held_out,
    check_least,
)
from embedkit.training.loss import Loss
from embedkit.training.reranker.ranked_lists import MEANINGS, RankedLists

AUTO = "auto"
RerankLoss = Annotated[str, OneOf((*loss_table.names("reranker"), AUTO))]


@dataclass(frozen=True, kw_only=True)
class RerankerRecipe:
    """Everything that `embedkit train reranker` needs besides the data and the model to start from.

    A step takes `batch_queries` queries, over all devices, each with up to `candidates` of its own texts and
    `random_negatives` texts of other queries. `loss` auto goes by the data. `exits` trains the head after these numbers of
    layers too, for scoring early. `held_out` is the share of queries kept for evaluation, at most `evaluate_queries`.
    `rerank_weight` is written beside the weights: the part of the model's score in the order of hits, the rest being the first stage's.
    `max_seq_length` none takes the model's limit. `temperature` is that of the loss kl, `positive_weight` of bce.
    """

    run: RunRecipe
    optim: OptimRecipe = field(
        default_factory=lambda: OptimRecipe(lr=3e-5, warmup_steps=100, beta2=0.999, eps=1e-8)
    )
    routing: RoutingRecipe | None = None
    lora: LoraRecipe | None = None
    loss: RerankLoss = AUTO
    batch_queries: int = 16
    candidates: int = 8
    random_negatives: int = 0
    max_seq_length: int | None = None
    positive_weight: float = 1.0
    temperature: float = 1.0
    exits: tuple[int, ...] = ()
    rerank_weight: float = 1.0
    held_out: float = 0.02
    evaluate_queries: int = 500

    def __post_init__(self) -> None:
        check_least(self, 1, "batch_queries", "candidates", "evaluate_queries")
        check_least(self, 0, "random_negatives")
        loss_table.check_settings("reranker", self)
        if not 0 <= self.rerank_weight <= 1:
            raise ValueError(f"rerank_weight is {self.rerank_weight}; it must be from 0 to 1")
        check_held_out(self.held_out)
        if any(layer < 1 for layer in self.exits):
            raise ValueError(f"exits is {list(self.exits)}; layers count from 1")
        check_least(self, 8, "max_seq_length")

    @property
    def wants_classes(self) -> bool:
        """Say whether labels are to be taken as classes also where they are 0 and 1."""
        return self.loss != AUTO and "class" in loss_table.find_loss("reranker", self.loss).learns_from


def resolve_loss(name: str, data: RankedLists) -> Loss:
    """Turn `auto` into the loss for the data, and refuse one that the data does not fit.

    Lists of one candidate each, such as pairs with a score, are learnt one by one: bce within 0 to 1, mse beyond.

    Raises:
        TrainingError: the loss needs other data, or its numbers are out of range.
    """
    values = data.relevance[data.candidates >= 0]
    lowest, highest = float(values.min()), float(values.max())
    fitting = loss_table.fitting("reranker", data.meaning)
    if name == AUTO:
        single = bool(((data.candidates >= 0).sum(axis=1) == 1).all()) and data.meaning != "teacher"
        one_by_one = [loss for loss in fitting if loss.pointwise and loss.accepts(lowest, highest)]
        return one_by_one[0] if single and lowest < highest else fitting[0]
    loss = loss_table.find_loss("reranker", name)
    if loss not in fitting:
        raise TrainingError(
            f"loss is {name!r}; the data says {MEANINGS[data.meaning]}, which does for {', '.join(each.name for each in fitting)}. "
            "Choose one of these, or other data"
        )
    if loss.accepts(lowest, highest):
        return loss
    least, most = loss.labels
    if most < np.inf:
        raise TrainingError(
            f"loss is {name!r}; the labels run from {lowest:g} to {highest:g}, it needs {least:g} to {most:g}. "
            f"Scale them, or choose {loss.instead}"
        )
    raise TrainingError(
        f"loss is {name!r}; the lowest label is {lowest:g}, it needs {least:g} or more. Choose {loss.instead}"
    )
