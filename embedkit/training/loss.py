"""What training must know of a loss besides its function: the rows of `embedkit.training.loss_table` are of this shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

ALIKE = "alike"  # classified pairs whose classes are 0 and 1: which are alike and which are not
Journey = Literal["contrastive", "reranker", "distill"]
# What the function of a loss is given, besides what `keywords` and `margin` say.
# contrastive: embeddings of
#   documents      queries, and the documents of the whole batch, those of the queries' own rows first
#   triplets       anchors, positives and negatives, a triplet for each negative
#   scores         two columns, then the scores; `unit scores` are mapped to 0…1 by loss.score_range
#   alike, classes two columns, then which pairs are alike, or their classes
#   labels         texts, then their labels
#   vectors        texts, then a teacher's vectors (also in distill)
#   whole texts    texts with words deleted, which a decoder makes logits of; then ids and mask of the whole texts
#   margins        none: scores of positives (B,) and negatives (B, K), then a teacher's margins (B, K), NaN for no negative
# reranker: no embeddings, but
#   single scores  the scores of all candidates in one row, then their relevance; `class logits`: logits and classes
#   lists          scores, relevance and mask of lists (B, K); `one positive`: scores and mask, the only positive in column 0
#   margins        as above
Takes = Literal[
    "documents",
    "triplets",
    "scores",
    "unit scores",
    "alike",
    "classes",
    "labels",
    "vectors",
    "whole texts",
    "margins",
    "single scores",
    "class logits",
    "lists",
    "one positive",
]


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may be: `says` ends the sentence "it must be …"."""

    says: str
    holds: Callable[[float], bool]


@dataclass(frozen=True)
class Setting:
    """A key of the recipe that a loss reads; `range` is that of a number."""

    key: str
    range: Range | None = None


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss of one kind of training.

    `learns_from` are the data it can be computed of: for contrastive training the kinds of rows (`alike` are classified pairs whose
    classes are 0 and 1), for rerankers the meanings of the relevance, for distillation texts. `default_for` says for which of them
    it is taken where nobody names another, and why. `instead` is the loss to advise where the data do not fit after all.

    `keywords` hand attributes of the recipe to the function, by its own keywords; `margin` is the margin where the recipe has none.
    `nested` losses can be computed of the first dimensions, too (Matryoshka). All contrastive losses can be computed through cached
    gradients (GradCache), none of the others. `even`: all rows must have equally many negatives.

    For rerankers, `mean_over` is what a batch's value is a mean over: its parts are weighted by their number of them. The relevance must lie
    within `labels`. `activation` is what the finished model puts over its scores.
    """

    name: str
    journey: Journey
    takes: Takes
    learns_from: tuple[str, ...]
    function_name: str = ""  # none: that of the same name
    default_for: Mapping[str, str] = field(default_factory=dict)
    instead: str = ""
    settings: tuple[Setting, ...] = ()
    keywords: Mapping[str, str] = field(default_factory=dict)
    margin: float | None = None
    nested: bool = True
    even: bool = False
    mean_over: Literal["lists", "candidates", "negatives", "couples"] = "lists"
    labels: tuple[float, float] = (-inf, inf)
    activation: Literal["identity", "sigmoid"] = "identity"

    @property
    def function(self) -> Callable[..., Tensor]:
        """The function of `embedkit.training.losses` that computes it."""
        # By its name, so that recipes, help and messages do not load torch.
        functions = import_module("embedkit.training.losses")
        found: Callable[..., Tensor] = getattr(functions, self.function_name or self.name)
        return found

    @property
    def pointwise(self) -> bool:
        """Say whether it learns from every candidate by itself, not from lists of them."""
        return self.takes in ("single scores", "class logits")

    def accepts(self, lowest: float, highest: float) -> bool:
        """Say whether relevance from `lowest` to `highest` is within its labels."""
        return self.labels[0] <= lowest and highest <= self.labels[1]
