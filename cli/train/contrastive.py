"""`embedkit train contrastive`: a sentence encoder from pairs, triplets, scores, labels or plain texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..shared import console, options
from ..shared.completing import complete_loss
from ..shared.groups import grouped
from ..shared.rows import RowReading
from . import view as train_view

if TYPE_CHECKING:
    from embedkit.training.contrastive.data_sets import DataSet
    from embedkit.training.contrastive.recipe import ContrastiveRecipe
    from embedkit.training.contrastive.training import Contrastive
    from embedkit.training.engine.evaluation_sets import EvaluationSet

EXAMPLES = """\b
Examples:
  embedkit train contrastive pairs.jsonl --model encoder --output sentences --steps 1000
  embedkit train contrastive squad nli.tsv -m encoder -o new --steps 5000 --evaluate sts/dev.tsv --patience 5
  embedkit train contrastive qa.jsonl -m encoder -o new --steps 1000 --batch-size 4096   # cached gradients
  embedkit train contrastive pairs.jsonl --recipe sparse -m encoder -o splade --steps 1000
  embedkit train contrastive rows.csv --column first=title --column second=text -m encoder -o new --steps 500
  embedkit train contrastive pairs.jsonl --recipe multi-vector -m encoder -o colbert --steps 1000
  embedkit train contrastive papers.jsonl --fields title,text,keywords -m encoder -o new --steps 1000
  torchrun --nproc-per-node 8 $(which embedkit) train contrastive pairs.jsonl -m encoder -o new --steps 500
"""


@dataclass(frozen=True, kw_only=True)
class ContrastiveTuning:
    """What is trained on what, by which loss."""

    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="NAME",
            autocompletion=complete_loss,
            help="Loss of all data sets. Default: what their columns ask for.",
            show_default=False,
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="N",
            min=2,
            help="Rows a step, over all devices.",
            show_default="the recipe's",
        ),
    ] = None
    query_prompt: Annotated[
        str | None,
        typer.Option(
            "--query-prompt", metavar="TEXT", help="Put before texts of the first column.", show_default=False
        ),
    ] = None
    document_prompt: Annotated[
        str | None,
        typer.Option(
            "--document-prompt",
            metavar="TEXT",
            help="Put before texts of the other columns.",
            show_default=False,
        ),
    ] = None
    fields: Annotated[
        str | None,
        typer.Option(
            "--fields",
            metavar="NAME,NAME,…",
            help="Documents have these fields; each gets an expert, and a query weighs those that are there.",
            show_default=False,
        ),
    ] = None
    lora_rank: options.LoraRank = None
    matryoshka: Annotated[
        str | None,
        typer.Option(
            "--matryoshka",
            metavar="N,M,…",
            help="Train the first so many dimensions too.",
            show_default=False,
        ),
    ] = None
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluate",
            metavar="SET",
            help="Scored pairs or a retrieval set FOLDER[:SPLIT]; their mean decides which weights are best; repeatable.",
            show_default=False,
        ),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            metavar="N",
            min=1,
            help="End after N evaluations without a better one.",
            show_default=False,
        ),
    ] = None

    def flags(self) -> dict[str, object]:
        """Return the settings of the recipe that these options change."""
        return {
            "run.patience": self.patience,
            "loss.name": self.loss,
            "data.batch_size": self.batch_size,
            "prompts.first": self.query_prompt,
            "prompts.second": self.document_prompt,
            "head.fields": None if self.fields is None else [name.strip() for name in self.fields.split(",")],
            "lora.rank": self.lora_rank,
            "loss.matryoshka": train_view.numbers(self.matryoshka),
        }


@grouped
def train_contrastive(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Data sets: files (.jsonl .csv .tsv .parquet .txt, also .gz .zst), folders of them, or retrieval sets FOLDER[:SPLIT].",
            show_default=False,
        ),
    ],
    *,
    model: options.Model,
    tuning: ContrastiveTuning,
    running: train_view.Running,
    reading: RowReading,
) -> None:
    """Turn an encoder into a sentence encoder, or fine-tune one.

    The columns of each data set choose its loss, which the start says; each step takes a batch of one data set. A batch that is too large
    for the memory goes through the model in parts, with the same gradients. Stopped at any moment, the same command with
    --resume goes on and ends with the same weights.
    """
    from embedkit.training.contrastive.recipe import ContrastiveRecipe

    # With LoRA few weights learn, at a higher rate.
    preset = "contrastive" if tuning.lora_rank is None else "contrastive-lora"
    wanted = train_view.resolve(
        ContrastiveRecipe, running, task="contrastive", preset=preset, flags=tuning.flags()
    )
    with running.ranks() as ranks:
        quiet = running.silent(ranks)
        journey = _journey(data, reading, tuning, wanted, model=model, quiet=quiet)
        train_view.run(journey, wanted, running, label="contrastive", ranks=ranks)
        if ranks.first and not running.dry_run:
            _write_card(journey, running.output)


def _journey(
    data: Sequence[str],
    reading: RowReading,
    tuning: ContrastiveTuning,
    recipe: ContrastiveRecipe,
    *,
    model: Path,
    quiet: bool,
) -> Contrastive:
    if recipe.sparse is not None:
        return _sparse_journey(data, reading, tuning, recipe, model=model, quiet=quiet)
    from embedkit.checkpoint.folder import fingerprint
    from embedkit.training.contrastive.data_sets import make_data_set, read_data_set
    from embedkit.training.contrastive.guide import load_guide
    from embedkit.training.contrastive.head import fields_of
    from embedkit.training.contrastive.start import load_start
    from embedkit.training.contrastive.training import Contrastive
    from embedkit.training.engine.evaluation_sets import load_evaluation_sets

    folder, encoder, tokens = load_start(model, recipe)
    roles = reading.roles()
    fields = () if tokens is not None else fields_of(folder, recipe)
    read = [read_data_set(source, roles, recipe.loss, read=reading.read(), fields=fields) for source in data]
    sets = load_evaluation_sets(tuning.evaluate or [])
    maxsim = None if tokens is None else tokens.similarity
    made = [
        make_data_set(rows, recipe, folder, encoder, number=number, maxsim=maxsim)
        for number, rows in enumerate(read)
    ]
    guide = None if recipe.loss.guide is None else load_guide(recipe.loss.guide)
    origin = str(fingerprint(folder)["weights"])
    journey = Contrastive(
        folder, encoder, made, recipe, origin=origin, evaluation=sets, guide=guide, tokens=tokens
    )
    _say_start(journey, made, sets, quiet=quiet)
    return journey


def _sparse_journey(
    data: Sequence[str],
    reading: RowReading,
    tuning: ContrastiveTuning,
    recipe: ContrastiveRecipe,
    *,
    model: Path,
    quiet: bool,
) -> Contrastive:
    """Begin the training of a learned sparse model."""
    from embedkit.checkpoint.folder import fingerprint
    from embedkit.training.contrastive.data_sets import make_data_set, read_data_set
    from embedkit.training.contrastive.sparse import SparseContrastive, start_sparse
    from embedkit.training.engine.evaluation_sets import load_evaluation_sets

    folder, encoder, fresh = start_sparse(str(model), recipe)
    roles = reading.roles()
    read = [read_data_set(source, roles, recipe.loss, read=reading.read()) for source in data]
    made = [make_data_set(rows, recipe, folder, encoder, number=number) for number, rows in enumerate(read)]
    sets = load_evaluation_sets(tuning.evaluate or [])
    origin = str(fingerprint(folder)["weights"])
    journey = SparseContrastive(folder, encoder, made, recipe, origin=origin, evaluation=sets)
    if fresh and not quiet:
        console.note(f"new, as {folder.name} has none: {', '.join(fresh)}, which begins as the token table")
    _say_start(journey, made, sets, quiet=quiet)
    return journey


def _say_start(
    journey: Contrastive, made: Sequence[DataSet], sets: Sequence[EvaluationSet], *, quiet: bool
) -> None:
    """Say what each data set is, and what of the evaluation sets is in training, too."""
    from embedkit.training.engine.evaluation_sets import find_overlaps

    if not quiet:
        for each, share in zip(made, journey.shares, strict=True):
            held_out = console.counted(each.num_held_out, "row")
            of_steps = f"{share:.0%} of the steps; " if len(made) > 1 else ""
            console.note(f"{each.described(each.examples.name)}; {of_steps}{held_out} held out")
        for overlap in find_overlaps(sets, (text for each in made for text in each.examples.texts)):
            console.warn(f"{overlap.warning()}")
        for warning in journey.warnings():
            console.warn(warning)


def _write_card(journey: Contrastive, output: Path) -> None:
    from embedkit.storage.files import write_text
    from embedkit.training.engine.run_folder import RunFolder
    from embedkit.training.reports.card import contrastive_card
    from embedkit.training.reports.log import summarize_log

    best = summarize_log(RunFolder(output).log_path).best
    card = contrastive_card(journey.manifest(), journey.described(), best)
    write_text(output / "README.md", card)
