"""`embedkit train mlm`: pretraining an encoder from nothing, or further, on plain texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..shared import console, options
from ..shared.options import DeviceName
from . import view as train_view

if TYPE_CHECKING:
    from embedkit.data.records import ReadOptions
    from embedkit.tokenization.tokenizer import Tokenizer
    from embedkit.training.engine.ranks import Ranks
    from embedkit.training.engine.recipes import PretrainRecipe
    from embedkit.training.pretraining.corpus import Corpus
    from embedkit.training.pretraining.mlm import Pretraining

EXAMPLES = """\b
Examples:
  embedkit train mlm corpus.jsonl.zst --tokenizer tokenizer --preset mini --output encoder --steps 5000
  embedkit train mlm corpus.jsonl.zst --tokenizer tokenizer --preset mini --output encoder --steps 5000 --resume
  embedkit train mlm reports/*.txt --model encoder --output adapted --steps 500 --freeze-layers 2
  torchrun --nproc-per-node 8 $(which embedkit) train mlm corpus.jsonl -o encoder --recipe base.toml --tokenizer tokenizer
"""


def train_mlm(
    inputs: options.Inputs,
    output: train_view.Output,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer", "-t", metavar="DIR", help="Tokenizer of a fresh model.", show_default=False
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="FOLDER",
            help="Model to train further instead of a fresh one.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Shape and settings: tiny, mini, small, base, vaswani.",
            show_default="mini",
        ),
    ] = None,
    recipe: train_view.RecipeFile = None,
    steps: train_view.Steps = None,
    next_sentence: Annotated[
        bool, typer.Option("--next-sentence", help="Also learn whether one sentence follows another.")
    ] = False,
    sentence_order: Annotated[
        bool, typer.Option("--sentence-order", help="Also learn the order of two sentences.")
    ] = False,
    whole_words: Annotated[
        bool, typer.Option("--whole-words", help="Mask all pieces of a word together.")
    ] = False,
    freeze_layers: Annotated[
        int | None,
        typer.Option(
            "--freeze-layers",
            metavar="K",
            min=0,
            help="Leave the embeddings and the first K layers as they are.",
            show_default=False,
        ),
    ] = None,
    settings: train_view.Settings = None,
    resume: train_view.Resume = False,
    dry_run: train_view.DryRun = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            envvar="EMBEDKIT_CACHE",
            help="Where token caches lie. Default: ~/.cache/embedkit.",
            show_default=False,
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard", metavar="DIR", help="Write the curves for TensorBoard too.", show_default=False
        ),
    ] = None,
    device: options.Device = DeviceName.auto,
    threads: train_view.Threads = None,
    format: options.Format = None,
    text_field: options.TextField = None,
    title_field: options.TitleField = None,
    max_line_bytes: options.MaxLineBytes = options.DEFAULT_MAX_LINE_BYTES,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Pretrain an encoder by masked language modelling (BERT's first task; the second by --next-sentence).

    The texts are tokenized once into a cache. Documents fill sequences without attention across them. Stopped at any moment, the
    same command with --resume goes on and ends with the same weights.
    """
    from embedkit.data.records import ReadOptions
    from embedkit.training.engine.ranks import launched
    from embedkit.training.engine.recipes import PretrainRecipe
    from embedkit.training.engine.run_folder import RunFolder

    if (tokenizer is None) == (model is None):
        raise typer.BadParameter(
            "name either --tokenizer, for a fresh model, or --model, to train one further"
        )
    if model is not None and preset is not None:
        raise typer.BadParameter("--preset is the shape of a fresh model; --model has its own")
    if next_sentence and sentence_order:
        raise typer.BadParameter("--next-sentence and --sentence-order exclude each other")
    flags = {
        "run.steps": steps,
        "masking.next_sentence": "next" if next_sentence else "order" if sentence_order else None,
        "masking.whole_words": "true" if whole_words else None,
        "freeze_layers": freeze_layers,
    }
    wanted = train_view.resolve(
        PretrainRecipe,
        preset=preset or ("adapt" if model else "mini"),
        path=recipe,
        flags=flags,
        settings=settings,
    )
    reading = ReadOptions(
        format=format.value if format else None,
        text_field=text_field,
        title_field=title_field,
        max_line_bytes=max_line_bytes,
    )
    if not dry_run:
        RunFolder(output).check_place(resume=resume)
    train_view.set_threads(threads)
    with launched(device.value) as ranks:
        quiet = quiet or not ranks.first
        journey = _journey(inputs, reading, wanted, tokenizer, model, cache, ranks, quiet)
        train_view.run(
            journey,
            wanted.run,
            wanted.optim,
            RunFolder(output),
            label="pretrain",
            ranks=ranks,
            resume=resume,
            dry_run=dry_run,
            tensorboard=tensorboard,
            as_json=as_json,
            quiet=quiet,
        )


def _journey(
    inputs: Sequence[str],
    reading: ReadOptions,
    recipe: PretrainRecipe,
    tokenizer: Path | None,
    model: Path | None,
    cache: Path | None,
    ranks: Ranks,
    quiet: bool,
) -> Pretraining:
    from embedkit.checkpoint.folder import fingerprint, read_model_folder
    from embedkit.tokenization.tokenizer import Tokenizer
    from embedkit.training.pretraining.mlm import Pretraining, continued_model, fresh_model

    origin = "scratch"
    if model is not None:
        folder = read_model_folder(model)
        words = folder.tokenizer
        trained, family, fresh = continued_model(recipe, folder)
        origin = str(fingerprint(folder)["weights"])
        for head in fresh if not quiet else ():
            console.note(f"{model} has no {head}; it starts fresh")
    else:
        assert tokenizer is not None
        words = Tokenizer.load(tokenizer)
        trained, family = fresh_model(recipe, words)
    corpus = _corpus(inputs, reading, words, cache, ranks, quiet)
    parts = ranks.world * recipe.run.accumulate
    journey = Pretraining(trained, words, family, corpus, recipe, parts=parts, origin=origin)
    if not quiet:
        epochs = recipe.run.steps * recipe.text.batch_tokens / journey.tokens_per_epoch
        console.note(
            f"{journey.documents:,} documents, {journey.tokens_per_epoch:,} tokens an epoch, {epochs:.2f} epochs; "
            f"{journey.held_out_documents:,} documents held out"
        )
    return journey


def _corpus(
    inputs: Sequence[str],
    reading: ReadOptions,
    tokenizer: Tokenizer,
    cache: Path | None,
    ranks: Ranks,
    quiet: bool,
) -> Corpus:
    """Open the token cache of these inputs; rank 0 makes it where there is none."""
    from embedkit.training.pretraining.corpus import (
        build_corpus,
        corpus_fingerprint,
        corpus_folder,
        open_corpus,
    )

    fingerprint = corpus_fingerprint(inputs, reading, tokenizer)
    folder = corpus_folder(cache, fingerprint)
    if ranks.first and not folder.exists():
        with console.progress_bar("tokenize", quiet=quiet) as bar:
            for progress in build_corpus(inputs, reading, tokenizer, folder, fingerprint):
                bar.update(progress.fraction, f"{progress.documents:,} documents  {progress.tokens:,} tokens")
    ranks.wait()
    return open_corpus(folder)
