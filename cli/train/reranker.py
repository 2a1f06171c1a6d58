"""`embedkit train reranker`: a cross-encoder from judged, scored or mined pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..shared import console, options
from ..shared.options import DeviceName
from . import view as train_view

if TYPE_CHECKING:
    from embedkit.training.engine.ranks import Ranks
    from embedkit.training.reranker.recipe import RerankerRecipe
    from embedkit.training.reranker.training import RerankerTraining

EXAMPLES = """\b
Examples:
  embedkit train reranker mined.jsonl --model encoder --output reranker --steps 2000
  embedkit train reranker mined.jsonl --model encoder --output reranker --steps 2000 --resume
  embedkit train reranker squad/ --model encoder -o reranker --steps 2000 --random-negatives 7
  embedkit train reranker nli.tsv -m encoder -o classes --steps 2000 --loss classes
Rows: query, positive, negatives (or negative_1 …) · query, text, label · query, texts, scores · sentence1, sentence2, score
"""


def train_reranker(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Files of rows (.jsonl .csv .tsv .parquet), or retrieval sets FOLDER[:SPLIT].",
            show_default=False,
        ),
    ],
    model: options.Model,
    output: train_view.Output,
    recipe: train_view.RecipeFile = None,
    steps: train_view.Steps = None,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="NAME",
            help="bce, softmax, ranknet, listnet, listmle, lambda, margin_mse, kl, mse or classes. Default: by the data.",
            show_default=False,
        ),
    ] = None,
    random_negatives: Annotated[
        int | None,
        typer.Option(
            "--random-negatives",
            metavar="N",
            min=0,
            help="Texts of other queries taken as negatives of each query. Default: the recipe's, 0.",
            show_default=False,
        ),
    ] = None,
    max_seq_length: options.MaxSeqLength = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="ROLE=NAME",
            help="Say which column is what, such as first=question; repeatable.",
            show_default=False,
        ),
    ] = None,
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
    """Train a cross-encoder, which reads query and text together and scores the pair.

    Starts from any encoder, whose head is made anew, or from a cross-encoder. Some queries are held out; the weights that do
    best on them are the model. Stopped at any moment, the same command with --resume goes on and ends with the same weights.
    """
    from embedkit.training.engine.ranks import launched
    from embedkit.training.engine.run_folder import RunFolder
    from embedkit.training.reranker.recipe import RerankerRecipe

    flags = {
        "run.steps": steps,
        "loss": loss,
        "random_negatives": random_negatives,
        "max_seq_length": max_seq_length,
    }
    wanted = train_view.resolve(RerankerRecipe, preset=None, path=recipe, flags=flags, settings=settings)
    if not dry_run:
        RunFolder(output).check_place(resume=resume)
    train_view.set_threads(threads)
    with launched(device.value) as ranks:
        quiet = quiet or not ranks.first
        journey = _journey(data, columns or [], wanted, model, ranks, quiet)
        train_view.run(
            journey,
            wanted.run,
            wanted.optim,
            RunFolder(output),
            label="reranker",
            ranks=ranks,
            resume=resume,
            dry_run=dry_run,
            tensorboard=tensorboard,
            as_json=as_json,
            quiet=quiet,
        )


def _journey(
    data: list[str], columns: list[str], recipe: RerankerRecipe, model: Path, ranks: Ranks, quiet: bool
) -> RerankerTraining:
    from embedkit.training.reranker.ranked_lists import read_ranked_lists
    from embedkit.training.reranker.start import start_from
    from embedkit.training.reranker.training import RerankerTraining
    from embedkit.training.rows.columns import parse_columns

    lists = read_ranked_lists(data, columns=parse_columns(columns), classes=recipe.loss == "classes")
    start = start_from(
        model,
        num_labels=max(1, len(lists.classes)),
        seed=recipe.run.seed,
        max_seq_length=recipe.max_seq_length,
    )
    journey = RerankerTraining(
        start.model,
        start.tokenizer,
        start.family,
        lists,
        recipe,
        token_types=start.token_types,
        origin=start.origin,
        parts=ranks.world * recipe.run.accumulate,
    )
    if not quiet:
        console.note(
            f"{len(journey.train):,} queries with {journey.train.num_candidates:,} texts, loss {journey.loss}; "
            f"{len(journey.held_out):,} queries held out"
        )
        if journey.num_unusable:
            console.note(
                f"note: {journey.num_unusable:,} queries are left out: their texts do not differ in relevance, "
                f"which loss {journey.loss} compares"
            )
        if start.fresh_head:
            console.note(f"{model} has no classification head; it starts fresh")
    return journey
