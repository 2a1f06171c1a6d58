"""What `embedkit train contrastive` needs to know besides the model and the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from embedkit.model.config import PoolingMode
from embedkit.model.learned_parts import SimilarityKind, check_fields
from embedkit.model.sparse_config import TermActivation, TermPooling, TermStrategy
from embedkit.recipe import OneOf
from embedkit.training import loss_table
from embedkit.training.engine.recipes import (
    LoraRecipe,
    OptimRecipe,
    RoutingRecipe,
    RunRecipe,
    check_encoder_run,
    check_held_out,
    check_least,
)

LossName = Annotated[str, OneOf(loss_table.names("contrastive"))]
Pooling = Annotated[str, OneOf((*get_args(PoolingMode), "attention"))]


@dataclass(frozen=True, kw_only=True)
class LossRecipe:
    """Which loss, and how.

    `name` none lets the columns decide. `temperature` divides cosines (and is 1 / scale of cosent and angle); `learn_temperature` trains
    it, by its logarithm. `symmetric` also asks for the query of each document. `false_negatives` leaves out in-batch documents
    nearer to the query than its positive less `false_negative_margin`, by the model itself (`margin`) or by `guide`, a model folder.
    `margin` none takes the loss's own; `soft_margin` has none. `score_range` maps scores to 0…1 (cosine_regression).
    `score_scale` multiplies the student's cosines where a teacher's scores are imitated. `matryoshka` trains the first so many
    dimensions too, `adaptive_layers` earlier layers. `delete_ratio` is the share of words that tsdae takes out.
    `similarity` is how vectors are compared; none is as the model's folder says. `head_diversity` and `aspect_diversity` weigh a penalty
    that makes the heads of attention, or the aspects of a pooling by attention, differ.
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
    similarity: SimilarityKind | None = None
    head_diversity: float = 0.0
    aspect_diversity: float = 0.0

    def __post_init__(self) -> None:
        loss_table.check_settings("contrastive", self)
        check_least(self, 0, "head_diversity", "aspect_diversity")
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

    @property
    def similarity_scale(self) -> float:
        """What cosent and angle multiply cosines by."""
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
        check_least(self, 2, "batch_size", "texts_per_label")
        check_least(self, 1, "micro_tokens", "evaluate_batches")
        check_least(self, 8, "max_length")
        check_least(self, 0, "mixing")
        check_held_out(self.held_out)


@dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """What is to stand on the encoder in place of what the model's folder says; none leaves that.

    `pooling` attention weighs tokens by `aspects` learned distributions with an inner layer of `size` (also that of an additive
    similarity); their vectors are averaged (`mean`), concatenated (`concat`), or concatenated and projected to the encoder's width
    (`project`). With `layer_start` token vectors are a learned mean of the layers from that one on, where 0 are the embeddings.
    `fields` are those of documents that get an expert each, of which a query weighs those that a document has.
    """

    pooling: Pooling | None = None
    aspects: int = 1
    size: int = 128
    combine: Literal["mean", "concat", "project"] = "mean"
    layer_start: int | None = None
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self.fields)
        check_least(self, 1, "aspects", "size")
        check_least(self, 0, "layer_start")
        if self.pooling != "attention" and (self.aspects != 1 or self.combine != "mean"):
            raise ValueError(
                f"aspects {self.aspects} and combine {self.combine!r} are of pooling 'attention', and pooling is {self.pooling or 'none'}. "
                "Set head.pooling=attention"
            )


@dataclass(frozen=True, kw_only=True)
class MultiVectorRecipe:
    """A head that gives each token a vector, of `dimension`; of a model that is a multi-vector one already all is as its folder says.

    Markers, tokens of the vocabulary, tell queries and documents apart. Queries are filled up to `query_tokens` with the mask token (0: not
    at all), which others attend to where `attend` says so; documents are cut to `document_length` tokens, and with `skip_punctuation` their
    punctuation gets no vectors. The defaults are ColBERT's (Khattab and Zaharia 2020, section 3; Santhanam et al. 2022), but for
    `query_marker` and `document_marker`, the tokens of BERT's vocabulary that it takes for [Q] and [D].
    """

    dimension: int = 128
    query_tokens: int = 32
    attend: bool = False
    document_length: int = 180
    skip_punctuation: bool = True
    query_marker: str = "[unused0]"
    document_marker: str = "[unused1]"

    def __post_init__(self) -> None:
        check_least(self, 1, "dimension")
        check_least(self, 0, "query_tokens")
        check_least(self, 8, "document_length")


@dataclass(frozen=True, kw_only=True)
class SparseRecipe:
    """What makes a learned sparse model (SPLADE) of an encoder with a masked-language-model head.

    A term weighs the maximum, or sum (`strategy`), of log(1 + ReLU(logit)) over a text's tokens, with `activation` log1p_relu the logarithm
    taken twice. `query_flops` and `document_flops` weigh the FLOPS penalty of each side, which grow with the square of the step to that
    at `flops_warmup_steps`. With `weigh_queries` queries are computed without a model, by a learned weight of each of their tokens.
    `max_active_dims` is written into the folder: so many terms of a text are kept.
    """

    strategy: TermStrategy = "max"
    activation: TermActivation = "relu"
    query_flops: float = 5e-5
    document_flops: float = 3e-5
    flops_warmup_steps: int = 500
    weigh_queries: bool = False
    max_active_dims: int | None = None

    def __post_init__(self) -> None:
        check_least(self, 0, "query_flops", "document_flops")
        check_least(self, 1, "flops_warmup_steps", "max_active_dims")

    @property
    def pooling(self) -> TermPooling:
        return TermPooling(strategy=self.strategy, activation=self.activation)

    def share(self, step: int) -> float:
        """Return the part of the penalties' weights that counts in a step, from 0: its square root grows evenly up to 1."""
        return min(1.0, (step + 1) / self.flops_warmup_steps) ** 2


@dataclass(frozen=True, kw_only=True)
class PromptRecipe:
    """What is put before the texts of the first column, and of the others; the finished model keeps them as its prompts."""

    first: str = ""
    second: str = ""


@dataclass(frozen=True, kw_only=True)
class ContrastiveRecipe:
    """Everything that `embedkit train contrastive` needs besides the model and the data."""

    run: RunRecipe
    head: HeadRecipe = field(default_factory=HeadRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    data: ContrastiveDataRecipe = field(default_factory=ContrastiveDataRecipe)
    prompts: PromptRecipe = field(default_factory=PromptRecipe)
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    routing: RoutingRecipe | None = None
    lora: LoraRecipe | None = None
    multi_vector: MultiVectorRecipe | None = None
    sparse: SparseRecipe | None = None

    def __post_init__(self) -> None:
        check_encoder_run(self.run)
        if self.head.fields and self.loss.similarity is not None:
            raise ValueError(
                f"head.fields compares by an expert for each field, and loss.similarity is {self.loss.similarity}. Leave one of them out"
            )
