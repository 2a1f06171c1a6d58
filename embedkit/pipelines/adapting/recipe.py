"""What is adapted to what and how, and how the stages report how far they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from embedkit.data.records import ReadOptions
from embedkit.training.engine.evaluation_sets import EvaluationSet
from embedkit.training.engine.recipes import check_below_one, check_held_out, check_least, check_seed
from embedkit.types import Computing

Stage = Literal["queries", "generate", "mlm", "index", "mine", "label", "train", "whiten", "rank", "measure"]
STAGES: tuple[Stage, ...] = get_args(Stage)


# Settings that say nothing unless the encoder is trained.
OF_TRAINING = frozenset(
    (
        "num_negatives",
        "first_rank",
        "last_rank",
        "relative_margin",
        "batch_size",
        "lr",
        "evaluations",
        "patience",
        "share",
    )
)


@dataclass(frozen=True)
class Progress:
    """How far a stage is: `fraction` from 0 to 1, None where it cannot be known; `done` says that its result is written."""

    stage: Stage
    fraction: float | None = None
    text: str = ""
    done: bool = False


@dataclass(frozen=True, kw_only=True)
class AdaptRecipe:
    """How a model is adapted to documents.

    At most `max_queries` queries are learned from. The encoder is trained on no more of them, beyond 500, than half of the rows that training
    reads: a query gives several, and to label those that are never read takes as long. `held_out` of the passages, at most `max_held_out`, are kept for measuring, with a
    query each. For a query up to `num_negatives` hard negatives are drawn from ranks `first_rank` to `last_rank`. With a reranker those that it
    scores as high as the passage are left out; without one, those whose cosine exceeds the passage's times (1 - `relative_margin`).
    Training makes `steps` steps of `batch_size` rows, evaluates `evaluations` times, and ends after `patience` evaluations without a
    better one. The result is `share` of the way from the model to what training made of it. `mlm_steps` of masked language modelling
    come first. Without steps none of the encoder's weights are trained. A linear map behind the pooling comes last: `whitening` 0 is none, 1
    makes the passages' vectors vary alike in all directions; then come `ranking_steps` of learning to rank as hybrid search does.

    Sources: GPL, Wang et al. 2022, https://arxiv.org/abs/2112.07577 (ranks, rate); WiSE-FT, Wortsman et al. 2022,
    https://arxiv.org/abs/2109.01903 (the share); Su et al. 2021, https://arxiv.org/abs/2103.15316 (whitening).
    """

    max_queries: int = 5000
    held_out: float = 0.1
    max_held_out: int = 300
    num_negatives: int = 4
    first_rank: int = 1
    last_rank: int = 50
    relative_margin: float = 0.05
    mlm_steps: int = 0
    steps: int = 0
    batch_size: int = 32
    lr: float = 2e-5
    evaluations: int = 8
    patience: int = 3
    share: float = 0.5
    whitening: float = 0.4
    ranking_steps: int = 100
    seed: int = 0

    @property
    def train_queries(self) -> int:
        """The most queries to train the encoder on."""
        return min(self.max_queries, max(500, self.steps * self.batch_size // 2))

    def __post_init__(self) -> None:
        check_least(self, 1, "max_queries", "max_held_out", "num_negatives", "first_rank")
        check_least(self, 1, "evaluations", "patience")
        check_least(self, 2, "batch_size")
        check_least(self, 0, "steps", "mlm_steps", "ranking_steps")
        check_seed(self.seed)
        check_held_out(self.held_out)
        check_below_one(self, "relative_margin")
        if self.last_rank < self.first_rank:
            raise ValueError(
                f"ranks are {self.first_rank} to {self.last_rank}; they must not end before they start"
            )
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}; it must be above 0")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; it must be above 0 and at most 1")
        if not 0 <= self.whitening <= 1:
            raise ValueError(f"whitening is {self.whitening}; it must be from 0 to 1")
        if not self.steps and self.mlm_steps:
            raise ValueError(
                f"mlm_steps is {self.mlm_steps} and steps 0; masked language modelling alone makes no better vectors. Give both, or neither"
            )
        if not self.steps and not self.maps:
            raise ValueError(
                "steps, whitening and ranking_steps are all 0; that leaves the model as it is. Give one of them"
            )

    @property
    def maps(self) -> bool:
        """Say whether a linear map is put behind the pooling."""
        return bool(self.whitening or self.ranking_steps)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What is adapted to what: documents and how they are read, a model, and the models and sets that help; None is without."""

    inputs: Sequence[str]
    reading: ReadOptions
    model: str
    reranker: str | None
    generator: str | None
    evaluation: Sequence[EvaluationSet]
    computing: Computing
