"""`embedkit train reranker`: a cross-encoder from judged, scored or mined pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.training.loss_table import names

from ..shared import console, options
from ..shared.completing import complete_loss
from ..shared.groups import grouped
from ..shared.rows import RowReading
from . import view as train_view

if TYPE_CHECKING:
    from embedkit.training.engine.ranks import Ranks
    from embedkit.training.reranker.recipe import RerankerRecipe
    from embedkit.training.reranker.training import RerankerTraining

LOSSES = names("reranker")
EXAMPLES = """\b
Examples:
  embedkit train reranker mined.jsonl --model encoder --output reranker --steps 2000
  embedkit train reranker mined.jsonl --model encoder --output reranker --steps 2000 --resume
  embedkit train reranker squad/ --model encoder -o reranker --steps 2000 --random-negatives 7
  embedkit train reranker nli.tsv -m encoder -o classes --steps 2000 --loss classes
Rows: query, positive, negatives (or negative_1 …) · query, text, label · query, texts, scores ·
sentence1, sentence2, score
"""


@dataclass(frozen=True, kw_only=True)
class RerankerTuning:
    """What is trained on, by which loss."""

    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="NAME",
            autocompletion=complete_loss,
            help=f"{', '.join(LOSSES[:-1])} or {LOSSES[-1]}. Default: by the data.",
            show_default=False,
        ),
    ] = None
    random_negatives: Annotated[
        int | None,
        typer.Option(
            "--random-negatives",
            metavar="N",
            min=0,
            help="Texts of other queries taken as negatives of each query. Default: the recipe's, 0.",
            show_default=False,
        ),
    ] = None
    max_seq_length: options.MaxSeqLength = None
    lora_rank: options.LoraRank = None

    def flags(self) -> dict[str, object]:
        """Return the settings of the recipe that these options change."""
        return {
            "loss": self.loss,
            "random_negatives": self.random_negatives,
            "max_seq_length": self.max_seq_length,
            "lora.rank": self.lora_rank,
        }


@grouped
def train_reranker(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Files of rows (.jsonl .csv .tsv .parquet), or retrieval sets FOLDER[:SPLIT].",
            show_default=False,
        ),
    ],
    *,
    model: options.Model,
    tuning: RerankerTuning,
    running: train_view.Running,
    reading: RowReading,
) -> None:
    """Train a cross-encoder, which reads query and text together and scores the pair.

    Starts from any encoder, whose head is new, or from a cross-encoder. Some queries are held out; the weights that do
    best on them are the model. Stopped at any moment, the same command with --resume goes on and ends with the same weights.
    """
    from embedkit.training.reranker.recipe import RerankerRecipe

    preset = None if tuning.lora_rank is None else "reranker-lora"  # few weights learn at a higher rate
    wanted = train_view.resolve(RerankerRecipe, running, task="reranker", preset=preset, flags=tuning.flags())
    with running.ranks() as ranks:
        journey, fresh_head = _journey(data, reading, wanted, model=model, ranks=ranks)
        if ranks.first:
            _say(journey)
            if fresh_head:
                console.note(f"{model} has no classification head; it starts fresh")
        train_view.run(journey, wanted, running, label="reranker", ranks=ranks)


def _journey(
    data: list[str], reading: RowReading, recipe: RerankerRecipe, *, model: Path, ranks: Ranks
) -> tuple[RerankerTraining, bool]:
    """Return the journey, and whether its head starts fresh."""
    from embedkit.training.reranker.reading import read_ranked_lists
    from embedkit.training.reranker.start import start_from
    from embedkit.training.reranker.training import RerankerTraining

    lists = read_ranked_lists(
        data, columns=reading.roles(), classes=recipe.wants_classes, read=reading.read()
    )
    start = start_from(
        model,
        num_labels=max(1, len(lists.classes)),
        seed=recipe.run.seed,
        max_seq_length=recipe.max_seq_length,
    )
    journey = RerankerTraining(start, lists, recipe, parts=ranks.world * recipe.run.accumulate)
    return journey, start.fresh_head


def _say(journey: RerankerTraining) -> None:
    console.note(
        f"{console.counted(len(journey.train), 'query')} with {console.counted(journey.train.num_candidates, 'text')}, "
        f"loss {journey.loss.name}; {console.counted(len(journey.held_out), 'query')} held out"
    )
    if journey.num_unusable:
        console.note(
            f"note: {console.counted(journey.num_unusable, 'query')} left out: the texts do not differ in relevance, "
            f"which loss {journey.loss.name} compares"
        )
    for warning in journey.warnings():
        console.warn(warning)
