"""`embedkit train generation`: an encoder–decoder from pairs of texts, such as queries for passages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..shared import console
from ..shared.groups import grouped
from ..shared.rows import PairReading
from . import view as train_view

if TYPE_CHECKING:
    from embedkit.training.engine.ranks import Ranks
    from embedkit.training.generation.pairs import SourceTargets
    from embedkit.training.generation.recipe import GenerationRecipe
    from embedkit.training.generation.start import GeneratorStart
    from embedkit.training.generation.training import GenerationTraining

EXAMPLES = """\b
Examples:
  embedkit train generation squad/ -m embedkit-small --preset query-generation --output generator
  embedkit train generation squad/ -m embedkit-small --preset query-generation --output generator --resume
  embedkit train generation pairs.tsv -m encoder -o titles --column source=abstract --column target=title
  embedkit train generation pairs.jsonl --tokenizer tokenizer --output generator --steps 5000
Rows: source, target · passage, query · document, title … A target may be a list of texts.
"""


@dataclass(frozen=True, kw_only=True)
class GenerationStart:
    """What training starts from: an encoder or a generator, or a tokenizer alone."""

    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Encoder to put a decoder on, or generator to train further: a folder, or a shipped model's name.",
            show_default=False,
        ),
    ] = None
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            "-t",
            metavar="DIR",
            help="Tokenizer of a fresh encoder and decoder.",
            show_default=False,
        ),
    ] = None
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Shape and settings: generation, query-generation, generation-tiny.",
        ),
    ] = "generation"

    def __post_init__(self) -> None:
        if (self.tokenizer is None) == (self.model is None):
            raise ValueError("name either --model, to start from one, or --tokenizer, for a fresh model")


@dataclass(frozen=True, kw_only=True)
class GenerationTuning:
    """How it is trained."""

    label_smoothing: Annotated[
        float | None,
        typer.Option(
            "--label-smoothing",
            metavar="S",
            min=0.0,
            max=0.99,
            help="Share of a target's probability spread over the vocabulary. Default: the recipe's, 0.1.",
            show_default=False,
        ),
    ] = None
    freeze_encoder: Annotated[
        bool, typer.Option("--freeze-encoder", help="Leave the encoder as it is; train the decoder alone.")
    ] = False

    def flags(self) -> dict[str, object]:
        """Return the settings of the recipe that these options change."""
        return {"label_smoothing": self.label_smoothing, "freeze_encoder": self.freeze_encoder or None}


@grouped
def train_generation(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Files of pairs (.jsonl .csv .tsv .parquet), or retrieval sets FOLDER[:SPLIT], whose queries are written.",
            show_default=False,
        ),
    ],
    *,
    start: GenerationStart,
    tuning: GenerationTuning,
    running: train_view.Running,
    reading: PairReading,
) -> None:
    """Train a text generator: an encoder reads the source, a decoder writes the target.

    Some sources are held out; the weights that find their targets likeliest are the model. Stopped at any moment, the same command
    with --resume goes on and ends with the same weights.
    """
    from embedkit.training.generation.recipe import GenerationRecipe

    wanted = train_view.resolve(
        GenerationRecipe, running, task="generation", preset=start.preset, flags=tuning.flags()
    )
    with running.ranks() as ranks:
        pairs = reading.pairs(data)
        found = _start(start, wanted, running)
        journey = _journey(found, pairs, wanted, ranks=ranks, quiet=running.silent(ranks))
        train_view.run(journey, wanted, running, label="generation", ranks=ranks)


def _start(start: GenerationStart, recipe: GenerationRecipe, running: train_view.Running) -> GeneratorStart:
    from embedkit.tokenization.tokenizer import Tokenizer
    from embedkit.training.generation.start import start_afresh, start_from_folder

    if start.tokenizer is not None:
        return start_afresh(Tokenizer.load(start.tokenizer), recipe)
    assert start.model is not None
    found = start_from_folder(start.model, recipe)
    train_view.refuse_shapes(running, *({"encoder", "decoder"} - set(found.fresh)))
    return found


def _journey(
    start: GeneratorStart, pairs: SourceTargets, recipe: GenerationRecipe, *, ranks: Ranks, quiet: bool
) -> GenerationTraining:
    from embedkit.training.generation.training import GenerationTraining

    journey = GenerationTraining(start, pairs, recipe, parts=ranks.world * recipe.run.accumulate)
    if not quiet:
        train, held_out = journey.train, journey.held_out
        epochs = recipe.run.steps * recipe.batch_sources / len(train)
        console.note(
            f"{console.counted(len(train), 'source')} with {console.counted(train.num_targets, 'target')} "
            f"({pairs.described}), {epochs:.2f} epochs; {console.counted(len(held_out), 'source')} held out"
        )
        if start.fresh:
            console.note(f"{' and '.join(start.fresh)}: fresh weights")
        for text in journey.warnings():
            console.warn(text)
    return journey
