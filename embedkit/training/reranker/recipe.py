"""The recipe of `embedkit train reranker`, and which loss fits which data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from embedkit.errors import TrainingError
from embedkit.training.engine.recipes import OptimRecipe, RunRecipe
from embedkit.training.reranker.ranked_lists import Meaning, RankedLists

RerankLoss = Literal[
    "bce", "softmax", "ranknet", "listnet", "listmle", "lambda", "margin_mse", "kl", "mse", "classes"
]
POINTWISE: tuple[RerankLoss, ...] = ("bce", "mse", "classes")  # learn from every pair by itself
# What each loss can learn from; the first loss of a kind of data is its default.
FITTING: dict[Meaning, tuple[RerankLoss, ...]] = {
    "binary": ("softmax", "bce", "ranknet", "listnet", "listmle", "lambda", "mse"),
    "graded": ("lambda", "bce", "ranknet", "listnet", "listmle", "mse"),
    "teacher": ("margin_mse", "kl", "ranknet", "listnet", "listmle", "mse"),
    "class": ("classes",),
}


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
    loss: RerankLoss | Literal["auto"] = "auto"
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
        for name, least in (
            ("batch_queries", 1),
            ("candidates", 1),
            ("random_negatives", 0),
            ("evaluate_queries", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("positive_weight", "temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a finite number above 0")
        if not 0 <= self.rerank_weight <= 1:
            raise ValueError(f"rerank_weight is {self.rerank_weight}; it must be from 0 to 1")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; it must be above 0 and below 1")
        if any(layer < 1 for layer in self.exits):
            raise ValueError(f"exits is {list(self.exits)}; layers count from 1")
        if self.max_seq_length is not None and self.max_seq_length < 8:
            raise ValueError(f"max_seq_length is {self.max_seq_length}; it must be at least 8")


def resolve_loss(loss: RerankLoss | Literal["auto"], data: RankedLists) -> RerankLoss:
    """Turn `auto` into the loss for the data, and refuse one that the data does not fit.

    Lists of one candidate each, such as pairs with a score, are learnt one by one: bce within 0 to 1, mse beyond.

    Raises:
        TrainingError: the loss needs other data, or its numbers are out of range.
    """
    values = data.relevance[data.candidates >= 0]
    unit = bool(values.min() >= 0 and values.max() <= 1)
    if loss == "auto":
        single = data.meaning in ("binary", "graded") and bool(
            ((data.candidates >= 0).sum(axis=1) == 1).all()
        )
        if single and np.ptp(values) > 0:
            return "bce" if unit else "mse"
        return FITTING[data.meaning][0]
    if loss not in FITTING[data.meaning]:
        what = {
            "binary": "relevant or not",
            "graded": "grades",
            "teacher": "scores of a teacher",
            "class": "classes",
        }[data.meaning]
        raise TrainingError(
            f"loss is {loss!r}; the data says {what}, which does for {', '.join(FITTING[data.meaning])}. "
            "Choose one of these, or other data"
        )
    if loss == "bce" and not unit:
        raise TrainingError(
            f"loss is 'bce'; the labels run from {values.min():g} to {values.max():g}, it needs 0 to 1. Scale them, or choose mse"
        )
    if loss == "lambda" and values.min() < 0:
        raise TrainingError(
            f"loss is 'lambda'; the lowest label is {values.min():g}, it needs 0 or more. Choose ranknet"
        )
    return loss
