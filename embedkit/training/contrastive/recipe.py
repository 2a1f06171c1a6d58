"""What `embedkit train contrastive` needs to know, and which losses the rows of a data set allow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from embedkit.training.distillation.recipe import check_run
from embedkit.training.engine.recipes import OptimRecipe, RunRecipe
from embedkit.training.rows.columns import Kind

LossName = Literal[
    "info_nce",
    "triplet",
    "cosent",
    "angle",
    "cosine_regression",
    "contrastive",
    "online_contrastive",
    "pair_classification",
    "batch_hard_triplet",
    "batch_all_triplet",
    "batch_semi_hard_triplet",
    "simcse",
    "tsdae",
    "embedding_mse",
    "margin_mse",
    "kl_distillation",
]
LOSS_NAMES: tuple[LossName, ...] = get_args(LossName)
# The kinds of rows that each loss learns from, and why it is taken where nobody names another.
LOSS_KINDS: dict[LossName, tuple[Kind, ...]] = {
    "info_nce": ("triplets", "pairs"),
    "triplet": ("triplets",),
    "cosent": ("scored",),
    "angle": ("scored",),
    "cosine_regression": ("scored",),
    "contrastive": ("classified",),
    "online_contrastive": ("classified",),
    "pair_classification": ("classified",),
    "batch_hard_triplet": ("labelled",),
    "batch_all_triplet": ("labelled",),
    "batch_semi_hard_triplet": ("labelled",),
    "simcse": ("texts",),
    "tsdae": ("texts",),
    "embedding_mse": ("vectors",),
    "margin_mse": ("distilled",),
    "kl_distillation": ("distilled",),
}
DEFAULT_LOSS: dict[Kind, tuple[LossName, str]] = {
    "pairs": ("info_nce", "pairs: each positive is to stand out among those of the other rows"),
    "triplets": (
        "info_nce",
        "pairs with negatives: the positive is to stand out among them and the other rows'",
    ),
    "scored": ("cosent", "pairs with a score: cosines are to have the order of the scores"),
    "classified": ("pair_classification", "pairs with a class: it is to be told from both vectors"),
    "labelled": ("batch_hard_triplet", "labelled texts: those of one label are to be nearer than others"),
    "texts": ("simcse", "texts alone: each is to be recognized through another dropout"),
    "vectors": ("embedding_mse", "texts with vectors: they are to be imitated"),
    "distilled": ("margin_mse", "triplets with a teacher's margins: they are to be imitated"),
}
ALIKE_OR_NOT = ("0", "1")  # the classes that mean a pair is alike or not
# Cosine distances: the margin of a triplet is theirs to use up, that of the contrastive losses sentence-transformers' 0.5.
DEFAULT_MARGIN: dict[LossName, float] = {"contrastive": 0.5, "online_contrastive": 0.5}
TRIPLET_MARGIN = 0.2


@dataclass(frozen=True, kw_only=True)
class LossRecipe:
    """Which loss, and how.

    `name` none lets the columns decide. `temperature` divides cosines (and is 1 / scale of cosent and angle); `learn_temperature` trains
    it, by its logarithm. `symmetric` also asks for the query of each document. `false_negatives` leaves out in-batch documents
    nearer to the query than its positive less `false_negative_margin`, by the model itself (`margin`) or by `guide`, a model folder.
    `margin` none takes the loss's own; `soft_margin` has none. `score_range` maps scores to 0…1 (cosine_regression).
    `score_scale` multiplies the student's cosines where a teacher's scores are imitated. `matryoshka` trains the first so many
    dimensions too, `adaptive_layers` earlier layers. `delete_ratio` is the share of words that tsdae takes out.
    """

    name: LossName | None = None
    temperature: float = 0.05
    learn_temperature: bool = False
    symmetric: bool = False
    false_negatives: Literal["none", "margin", "guide"] = "none"
    false_negative_margin: float = 0.0
    guide: str | None = None
    margin: float | None = None
    soft_margin: bool = False
    score_range: tuple[float, ...] = ()
    score_scale: float = 20.0
    matryoshka: tuple[int, ...] = ()
    adaptive_layers: bool = False
    delete_ratio: float = 0.6

    def __post_init__(self) -> None:
        for name in ("temperature", "score_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.margin is not None and self.margin <= 0:
            raise ValueError(f"margin is {self.margin}; it must be above 0")
        if self.score_range and (len(self.score_range) != 2 or self.score_range[0] >= self.score_range[1]):
            raise ValueError(f"score_range is {list(self.score_range)}; it must be [lowest, highest]")
        if min(self.matryoshka, default=1) < 1 or len(set(self.matryoshka)) != len(self.matryoshka):
            raise ValueError(
                f"matryoshka is {list(self.matryoshka)}; it must name distinct dimensions above 0"
            )
        if (self.false_negatives == "guide") != (self.guide is not None):
            raise ValueError(
                "false_negatives 'guide' and guide, a model folder, go together; set both or neither"
            )
        if not 0 < self.delete_ratio < 1:
            raise ValueError(f"delete_ratio is {self.delete_ratio}; it must be above 0 and below 1")

    @property
    def similarity_scale(self) -> float:
        return 1 / self.temperature


@dataclass(frozen=True, kw_only=True)
class ContrastiveDataRecipe:
    """How rows become batches.

    A batch is `batch_size` rows of one data set, cut to `max_length` tokens (none: what the model reads). Texts go through the model in
    parts of at most `micro_tokens`; where a batch has several parts, gradients are cached, so that memory does not grow with the
    batch. `mixing` is the power of a data set's size that it is drawn by: 1 in proportion, 0 all alike. `held_out` is the
    share of rows kept to measure the loss on, `evaluate_batches` batches of them.
    """

    batch_size: int = 64
    max_length: int | None = None
    micro_tokens: int = 16_384
    mixing: float = 1.0
    texts_per_label: int = 4
    held_out: float = 0.01
    evaluate_batches: int = 8

    def __post_init__(self) -> None:
        for name, smallest in (
            ("batch_size", 2),
            ("micro_tokens", 1),
            ("texts_per_label", 2),
            ("evaluate_batches", 1),
        ):
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {smallest}")
        if self.max_length is not None and self.max_length < 8:
            raise ValueError(f"max_length is {self.max_length}; it must be at least 8")
        if self.mixing < 0:
            raise ValueError(f"mixing is {self.mixing}; it must be at least 0")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; it must be above 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class PromptRecipe:
    """What is put before the texts of the first column, and of the others; the finished model keeps them as its prompts."""

    first: str = ""
    second: str = ""


@dataclass(frozen=True, kw_only=True)
class ContrastiveRecipe:
    """Everything that `embedkit train contrastive` needs besides the model and the data."""

    run: RunRecipe
    loss: LossRecipe = field(default_factory=LossRecipe)
    data: ContrastiveDataRecipe = field(default_factory=ContrastiveDataRecipe)
    prompts: PromptRecipe = field(default_factory=PromptRecipe)
    optim: OptimRecipe = field(default_factory=OptimRecipe)

    def __post_init__(self) -> None:
        check_run(self.run)
