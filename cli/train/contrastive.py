"""`embedkit train contrastive`: a sentence encoder from pairs, triplets, scores, labels or plain texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..shared import console, options
from ..shared.options import DeviceName
from . import view as train_view

if TYPE_CHECKING:
    from embedkit.training.contrastive.recipe import ContrastiveRecipe
    from embedkit.training.contrastive.training import Contrastive
    from embedkit.training.engine.ranks import Ranks

EXAMPLES = """\b
Examples:
  embedkit train contrastive pairs.jsonl --model encoder --output sentences --steps 1000
  embedkit train contrastive squad nli.tsv sts/train.tsv --model encoder -o sentences --steps 5000 --evaluate sts/dev.tsv --patience 5
  embedkit train contrastive qa.jsonl --model encoder -o sentences --steps 1000 --batch-size 4096   # cached gradients
  embedkit train contrastive pairs.csv --column first=title --column second=abstract --model encoder -o sentences --steps 1000
  torchrun --nproc-per-node 8 $(which embedkit) train contrastive pairs.jsonl -m encoder -o sentences --steps 1000
"""


def train_contrastive(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Data sets: files (.jsonl .csv .tsv .parquet .txt, also .gz .zst), folders of them, or retrieval sets FOLDER[:SPLIT].",
            show_default=False,
        ),
    ],
    output: train_view.Output,
    model: options.Model,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="NAME",
            help="Loss of all data sets. Default: what their columns ask for.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", metavar="N", min=2, help="Rows a step, over all devices.", show_default="64"
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="ROLE=NAME",
            help="Which column is first, second, negatives, text, score, label, vector or margins; repeatable.",
            show_default=False,
        ),
    ] = None,
    query_prompt: Annotated[
        str | None,
        typer.Option(
            "--query-prompt", metavar="TEXT", help="Put before texts of the first column.", show_default=False
        ),
    ] = None,
    document_prompt: Annotated[
        str | None,
        typer.Option(
            "--document-prompt",
            metavar="TEXT",
            help="Put before texts of the other columns.",
            show_default=False,
        ),
    ] = None,
    matryoshka: Annotated[
        str | None,
        typer.Option(
            "--matryoshka",
            metavar="N,M,…",
            help="Train the first so many dimensions too.",
            show_default=False,
        ),
    ] = None,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluate",
            metavar="SET",
            help="Scored pairs or a retrieval set FOLDER[:SPLIT]; their mean decides which weights are best; repeatable.",
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            metavar="N",
            min=1,
            help="End after N evaluations without a better one.",
            show_default=False,
        ),
    ] = None,
    recipe: train_view.RecipeFile = None,
    steps: train_view.Steps = None,
    settings: train_view.Settings = None,
    resume: train_view.Resume = False,
    dry_run: train_view.DryRun = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard", metavar="DIR", help="Write the curves for TensorBoard too.", show_default=False
        ),
    ] = None,
    device: options.Device = DeviceName.auto,
    threads: train_view.Threads = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn an encoder into a sentence encoder, or fine-tune one.

    The columns of each data set choose its loss, which the start says; each step takes a batch of one data set. A batch that is too large
    for the memory goes through the model in parts, with the same gradients. Stopped at any moment, the same command with
    --resume goes on and ends with the same weights.
    """
    from embedkit.training.contrastive.recipe import ContrastiveRecipe
    from embedkit.training.engine.ranks import launched
    from embedkit.training.engine.run_folder import RunFolder

    flags = {
        "run.steps": steps,
        "run.patience": patience,
        "loss.name": loss,
        "data.batch_size": batch_size,
        "prompts.first": None if query_prompt is None else json.dumps(query_prompt),
        "prompts.second": None if document_prompt is None else json.dumps(document_prompt),
        "loss.matryoshka": None if matryoshka is None else f"[{matryoshka}]",
    }
    wanted = train_view.resolve(
        ContrastiveRecipe, preset="contrastive", path=recipe, flags=flags, settings=settings
    )
    if not dry_run:
        RunFolder(output).check_place(resume=resume)
    train_view.set_threads(threads)
    with launched(device.value) as ranks:
        quiet = quiet or not ranks.first
        journey = _journey(data, column or [], wanted, model, evaluate or [], ranks, quiet)
        train_view.run(
            journey,
            wanted.run,
            wanted.optim,
            RunFolder(output),
            label="contrastive",
            ranks=ranks,
            resume=resume,
            dry_run=dry_run,
            tensorboard=tensorboard,
            as_json=as_json,
            quiet=quiet,
        )
        if ranks.first and not dry_run:
            _write_card(journey, output)


def _journey(
    data: Sequence[str],
    column: Sequence[str],
    recipe: ContrastiveRecipe,
    model: Path,
    evaluate: Sequence[str],
    ranks: Ranks,
    quiet: bool,
) -> Contrastive:
    from embedkit.checkpoint.folder import fingerprint, read_model_folder
    from embedkit.checkpoint.weights import load_sentence_encoder
    from embedkit.training.contrastive.data_sets import make_data_set, read_data_set
    from embedkit.training.contrastive.training import Contrastive, load_guide
    from embedkit.training.engine.evaluation_sets import find_overlaps, load_evaluation_sets
    from embedkit.training.rows.columns import parse_columns

    folder = read_model_folder(model)
    roles = parse_columns(column)
    read = [read_data_set(source, roles, recipe.loss) for source in data]
    sets = load_evaluation_sets(evaluate)
    encoder = load_sentence_encoder(folder)
    made = [
        make_data_set(examples, loss, why, recipe, folder, encoder, number=number)
        for number, (examples, loss, why) in enumerate(read)
    ]
    guide = None if recipe.loss.guide is None else load_guide(recipe.loss.guide)
    origin = str(fingerprint(folder)["weights"])
    journey = Contrastive(folder, encoder, made, recipe, origin=origin, evaluation=sets, guide=guide)
    if not quiet:
        for each, share in zip(made, journey.shares, strict=True):
            console.note(
                f"{each.described(each.examples.name)}. {share:.0%} of the steps; {each.num_held_out:,} rows held out"
            )
        for overlap in find_overlaps(sets, (text for each in made for text in each.examples.texts)):
            console.note(f"warning: {overlap.warning()}")
    return journey


def _write_card(journey: Contrastive, output: Path) -> None:
    from embedkit.storage.files import write_atomically
    from embedkit.training.engine.run_folder import RunFolder
    from embedkit.training.reports.card import best_results, contrastive_card

    results = best_results(RunFolder(output).log_path)
    card = contrastive_card(journey.manifest(), journey.described(), results)
    write_atomically(output / "README.md", card)
