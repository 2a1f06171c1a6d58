"""`embedkit train lm`: a language model that continues texts, from plain texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..shared import console, options
from ..shared.groups import grouped
from . import view as train_view
from .corpora import CacheFolder, FreshTokenizer, Texts, open_texts

if TYPE_CHECKING:
    from embedkit.training.engine.ranks import Ranks
    from embedkit.training.generation.language_model import LanguageModelTraining
    from embedkit.training.generation.recipe import LanguageModelRecipe

EXAMPLES = """\b
Examples:
  embedkit train lm corpus.jsonl.zst --tokenizer tokenizer --preset gpt-mini --output lm --steps 5000
  embedkit train lm corpus.jsonl.zst --tokenizer tokenizer --preset gpt-mini --output lm --steps 5000 --resume
  embedkit train lm reports/*.txt --model lm --output adapted --steps 500
  echo "The river" | embedkit generate - --model lm
"""


@dataclass(frozen=True, kw_only=True)
class LanguageModelStart:
    """What training starts from: a fresh model of a shape and a tokenizer, or a model."""

    tokenizer: FreshTokenizer = None
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="FOLDER",
            help="Language model to train further instead of a fresh one.",
            show_default=False,
        ),
    ] = None
    preset: Annotated[
        str,
        typer.Option("--preset", metavar="NAME", help="Shape and settings: gpt-tiny, gpt-mini, gpt2."),
    ] = "gpt-mini"

    def __post_init__(self) -> None:
        if (self.tokenizer is None) == (self.model is None):
            raise ValueError("name either --tokenizer, for a fresh model, or --model, to train one further")


@grouped
def train_lm(
    inputs: options.Inputs,
    *,
    start: LanguageModelStart,
    running: train_view.Running,
    cache: CacheFolder = None,
    reading: options.Reading,
) -> None:
    """Train a decoder-only language model (as GPT-2) to predict each token from those before it.

    The texts are tokenized once into a cache. Held-out documents are measured by their perplexity. Stopped at any moment, the same
    command with --resume goes on and ends with the same weights.
    """
    from embedkit.training.generation.recipe import LanguageModelRecipe

    if start.model is not None:
        train_view.refuse_shapes(running, "decoder")
    wanted = train_view.resolve(LanguageModelRecipe, running, task="lm", preset=start.preset, flags={})
    with running.ranks() as ranks:
        texts = Texts(inputs, reading, cache, running.silent(ranks))
        journey = _journey(texts, wanted, start, ranks=ranks)
        train_view.run(journey, wanted, running, label="language model", ranks=ranks)


def _journey(
    texts: Texts, recipe: LanguageModelRecipe, start: LanguageModelStart, *, ranks: Ranks
) -> LanguageModelTraining:
    from embedkit.tokenization.tokenizer import Tokenizer
    from embedkit.training.generation.language_model import LanguageModelTraining
    from embedkit.training.generation.start import start_language_model

    words = None if start.tokenizer is None else Tokenizer.load(start.tokenizer)
    found = start_language_model(recipe, tokenizer=words, path=start.model)
    corpus = open_texts(texts, found.tokenizer, ranks)
    journey = LanguageModelTraining(found, corpus, recipe, parts=ranks.world * recipe.run.accumulate)
    if not texts.quiet:
        epochs = recipe.run.steps * recipe.batch_tokens / journey.tokens_per_epoch
        console.note(
            f"{console.counted(journey.documents, 'document')}, {journey.tokens_per_epoch:,} tokens per epoch, "
            f"{epochs:.2f} epochs; {console.counted(journey.held_out_documents, 'document')} held out"
        )
    return journey
