"""`embedkit train mlm`: pretraining an encoder from nothing, or further, on plain texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from ..shared import completing, console, options
from ..shared.groups import grouped
from . import view as train_view
from .corpora import CacheFolder, FreshTokenizer, Texts, open_texts

if TYPE_CHECKING:
    from embedkit.training.engine.ranks import Ranks
    from embedkit.training.engine.recipes import PretrainRecipe
    from embedkit.training.pretraining.mlm import Pretraining

EXAMPLES = """\b
Examples:
  embedkit train mlm corpus.jsonl.zst --tokenizer tokenizer --preset mini --output encoder --steps 5000
  embedkit train mlm corpus.jsonl.zst -t tokenizer --preset mini -o encoder --steps 5000 --resume
  embedkit train mlm reports/*.txt --model encoder --output adapted --steps 500 --freeze-layers 2
  torchrun --nproc-per-node 8 $(which embedkit) train mlm corpus.jsonl -t tokenizer -o encoder --steps 9000
"""


@dataclass(frozen=True, kw_only=True)
class PretrainingStart:
    """What training starts from: a fresh model of a shape and a tokenizer, or a model."""

    tokenizer: FreshTokenizer = None
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="FOLDER",
            autocompletion=completing.complete_model,
            help="Model to train further instead of a fresh one.",
            show_default=False,
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            autocompletion=completing.complete_recipe,
            help="Shape and settings: tiny, mini, small, base, vaswani, or a variant of mini (`embedkit recipes list`).",
            show_default="mini",
        ),
    ] = None

    def __post_init__(self) -> None:
        if (self.tokenizer is None) == (self.model is None):
            raise ValueError("name either --tokenizer, for a fresh model, or --model, to train one further")
        if self.model is not None and self.preset is not None:
            raise ValueError("--preset is the shape of a fresh model; --model has its own")


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """What is learned."""

    PANEL: ClassVar[str] = "Tasks"

    next_sentence: Annotated[
        bool, typer.Option("--next-sentence", help="Also learn whether one sentence follows another.")
    ] = False
    sentence_order: Annotated[
        bool, typer.Option("--sentence-order", help="Also learn the order of two sentences.")
    ] = False
    whole_words: Annotated[
        bool, typer.Option("--whole-words", help="Mask all pieces of a word together.")
    ] = False
    freeze_layers: Annotated[
        int | None,
        typer.Option(
            "--freeze-layers",
            metavar="K",
            min=0,
            help="Leave the embeddings and the first K layers as they are.",
            show_default=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.next_sentence and self.sentence_order:
            raise ValueError("--next-sentence and --sentence-order exclude each other")

    def flags(self) -> dict[str, object]:
        """Return the settings of the recipe that these options change."""
        pairs = "next" if self.next_sentence else "order" if self.sentence_order else None
        return {
            "masking.next_sentence": pairs,
            "masking.whole_words": self.whole_words or None,
            "freeze_layers": self.freeze_layers,
        }


@grouped
def train_mlm(
    inputs: options.Files,
    *,
    start: PretrainingStart,
    tasks: Tasks,
    running: train_view.Running,
    cache: CacheFolder = None,
    reading: options.Reading,
) -> None:
    """Pretrain an encoder by masked language modelling (BERT's first task; the second by --next-sentence).

    The texts are tokenized once into a cache. Documents fill sequences without attention across them. Stopped at any moment, the
    same command with --resume goes on and ends with the same weights.
    """
    from embedkit.training.engine.recipes import PretrainRecipe

    preset = start.preset or ("adapt" if start.model else "mini")
    wanted = train_view.resolve(PretrainRecipe, running, task="mlm", preset=preset, flags=tasks.flags())
    with running.ranks() as ranks:
        texts = Texts(inputs, reading, cache, running.silent(ranks))
        journey = _journey(texts, wanted, start, ranks=ranks)
        train_view.run(journey, wanted, running, label="pretrain", ranks=ranks)


def _journey(texts: Texts, recipe: PretrainRecipe, start: PretrainingStart, *, ranks: Ranks) -> Pretraining:
    from embedkit.checkpoint.folder import fingerprint, read_model_folder
    from embedkit.tokenization.tokenizer import Tokenizer
    from embedkit.training.pretraining.mlm import Pretraining, continued_model, fresh_model

    origin = "scratch"
    if start.model is not None:
        folder = read_model_folder(start.model)
        words = folder.tokenizer
        trained, family, fresh = continued_model(recipe, folder)
        origin = str(fingerprint(folder)["weights"])
        for head in fresh if not texts.quiet else ():
            console.note(f"{start.model} has no {head}; it starts fresh")
    else:
        assert start.tokenizer is not None
        words = Tokenizer.load(start.tokenizer)
        trained, family = fresh_model(recipe, words)
    corpus = open_texts(texts, words, ranks)
    parts = ranks.world * recipe.run.accumulate
    journey = Pretraining(trained, words, family, corpus=corpus, recipe=recipe, parts=parts, origin=origin)
    if not texts.quiet:
        epochs = recipe.run.steps * recipe.text.batch_tokens / journey.tokens_per_epoch
        console.note(
            f"{console.counted(journey.documents, 'document')}, {journey.tokens_per_epoch:,} tokens per epoch, {epochs:.2f} epochs; "
            f"{console.counted(journey.held_out_documents, 'document')} held out"
        )
    return journey
