"""What `embedkit train distill` needs to know besides the teacher and the texts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from embedkit.recipe import OneOf
from embedkit.training import loss_table
from embedkit.training.engine.recipes import (
    ModelRecipe,
    OptimRecipe,
    RoutingRecipe,
    RunRecipe,
    check_below_one,
    check_encoder_run,
    check_held_out,
    check_least,
)

StudentKind = Literal["transformer", "static"]
DistillLoss = Annotated[str, OneOf(loss_table.names("distill"))]


@dataclass(frozen=True, kw_only=True)
class StudentRecipe:
    """What the student is.

    `folder` is a model to go on with; else the student is made here. With a `dimension` beside it, a last layer turns its vectors to
    the teacher's principal axes, so that the first N dimensions serve as shorter vectors; without, the teacher's turn to its own.
    `layers` are copied from the teacher, numbered from 0, with the `intermediate_size` strongest inner units of their feed-forward
    layers (default: all); without them the encoder is drawn fresh in the shape of `model`.
    `prune_below` leaves out the tokens that the texts use fewer times; 0 keeps all. `dimension` cuts the vectors by PCA.
    `dropout` is that of the student in training; a student that imitates vectors does better without.
    """

    folder: str | None = None
    kind: StudentKind = "transformer"
    layers: tuple[int, ...] = ()
    intermediate_size: int | None = None
    prune_below: int = 0
    dimension: int | None = None
    dropout: float = 0.0
    model: ModelRecipe = field(default_factory=ModelRecipe)

    def __post_init__(self) -> None:
        shaped = (
            StudentRecipe(dropout=self.dropout, dimension=self.dimension) if self.folder is not None else None
        )
        if shaped is not None and replace(self, folder=None) != shaped:
            raise ValueError(
                f"folder is {self.folder!r}; that student has its shape, so only dropout and dimension can be set beside it"
            )
        check_least(self, 0, "prune_below")
        check_below_one(self, "dropout")
        if self.intermediate_size is not None and (self.intermediate_size < 1 or not self.layers):
            raise ValueError(
                f"intermediate_size is {self.intermediate_size}; it must be at least 1, and goes with layers of the teacher"
            )
        if self.kind == "static" and self.layers:
            raise ValueError(f"layers are {self.layers}; a static student has none. Leave one of the two out")


@dataclass(frozen=True, kw_only=True)
class DistillDataRecipe:
    """How texts become batches.

    A batch is `batch_size` texts, cut to `max_length` tokens, which go through the student in parts of at most `micro_tokens`.
    `held_out` is the share of texts kept for evaluation, at most `evaluate_texts` of them.
    """

    batch_size: int = 128
    max_length: int = 256
    micro_tokens: int = 8192
    held_out: float = 0.01
    evaluate_texts: int = 1000

    def __post_init__(self) -> None:
        check_least(self, 1, "batch_size", "micro_tokens", "evaluate_texts")
        check_least(self, 8, "max_length")
        check_held_out(self.held_out)


@dataclass(frozen=True, kw_only=True)
class DistillRecipe:
    """Everything about a distillation. `loss` cosine is 1 - cos, for vectors that are compared by cosine; mse for others.

    `similarity_weight` adds `similarity_distillation` with that weight, at `similarity_temperature`, over the texts of a step.
    """

    run: RunRecipe
    student: StudentRecipe = field(default_factory=StudentRecipe)
    data: DistillDataRecipe = field(default_factory=DistillDataRecipe)
    loss: DistillLoss = loss_table.fitting("distill", "texts")[0].name
    similarity_weight: float = 0.0
    similarity_temperature: float = 0.05
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    routing: RoutingRecipe | None = None

    def __post_init__(self) -> None:
        check_encoder_run(self.run)
        check_least(self, 0, "similarity_weight")
        if not self.similarity_temperature > 0:
            raise ValueError(f"similarity_temperature is {self.similarity_temperature}; it must be above 0")
