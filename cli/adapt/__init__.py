"""`embedkit adapt`: a model adapted to documents that nobody has labelled."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from embedkit.models import ENCODER, RERANKER

from ..shared import console, options
from ..shared.completing import complete_reranker
from ..shared.groups import grouped
from .output import show, show_estimate, warn

if TYPE_CHECKING:
    from embedkit.pipelines.adapting.adapting import Adaptation
    from embedkit.pipelines.adapting.recipe import AdaptRecipe

EXAMPLES = """\b
Examples:
  embedkit adapt documents/ --output mine
  embedkit adapt articles.jsonl -o mine --dry-run                # what it would take
  embedkit adapt articles.jsonl -o mine --evaluate sts/dev.tsv   # and what it does to other texts
  embedkit adapt articles.jsonl -o mine --steps 400              # train the encoder, too: an hour
  embedkit adapt articles.jsonl -o mine --steps 200 --no-reranker
  embedkit index articles.jsonl --model mine
"""


@dataclass(frozen=True, kw_only=True)
class Adapting:
    """How much is done; what is not said here is the default of `AdaptRecipe`."""

    PANEL: ClassVar[str] = "Adapting"

    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="N",
            min=0,
            help="Steps of training the encoder, at most. Without, only a linear map is put behind it.",
            show_default="0",
        ),
    ] = None
    max_queries: Annotated[
        int | None,
        typer.Option(
            "--max-queries", metavar="N", min=1, help="Queries to learn from, at most.", show_default="5000"
        ),
    ] = None
    share: Annotated[
        float | None,
        typer.Option(
            "--share",
            metavar="A",
            help="How much of the training the result takes: 1 all of it, less is nearer to the model as it was.",
            show_default="0.5",
        ),
    ] = None
    whitening: Annotated[
        float | None,
        typer.Option(
            "--whitening",
            metavar="S",
            help="How far to even out the directions in which the documents' vectors vary: 0 not at all, 1 fully.",
            show_default="0.4",
        ),
    ] = None
    ranking_steps: Annotated[
        int | None,
        typer.Option(
            "--ranking-steps",
            metavar="N",
            min=0,
            help="Steps in which a linear map learns to rank the documents as hybrid search does; 0 leaves it out.",
            show_default="100",
        ),
    ] = None
    mlm_steps: Annotated[
        int | None,
        typer.Option(
            "--mlm-steps",
            metavar="N",
            min=0,
            help="Steps of masked language modelling on the documents, before --steps.",
            show_default="0",
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", min=0, help="Seed of all draws.", show_default="0")
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change another setting, such as lr=1e-5 or num_negatives=8; repeatable, wins over all.",
            show_default=False,
        ),
    ] = None

    def recipe(self) -> AdaptRecipe:
        """Return the recipe.

        Raises:
            RecipeError: a setting is unknown or out of range.
        """
        from embedkit.pipelines.adapting.recipe import AdaptRecipe
        from embedkit.recipe import load_recipe

        given = {
            name: value for name, value in asdict(self).items() if value is not None and name != "settings"
        }
        return load_recipe(AdaptRecipe, values=given, overrides=self.settings or ())

    def of_training(self) -> list[str]:
        """Name what was given and only training the encoder reads."""
        from embedkit.pipelines.adapting.recipe import OF_TRAINING

        keys = [setting.partition("=")[0].strip() for setting in self.settings or ()]
        named = ["--share"] if self.share is not None else []
        return named + [f"--set {key}" for key in keys if key in OF_TRAINING]


@dataclass(frozen=True, kw_only=True)
class Helpers:
    """Which other models help."""

    PANEL: ClassVar[str] = "Other models"

    reranker: Annotated[
        str,
        typer.Option(
            "--reranker",
            metavar="MODEL",
            autocompletion=complete_reranker,
            help="Cross-encoder that says how much better a query's passage is than others.",
        ),
    ] = RERANKER
    no_reranker: Annotated[
        bool,
        typer.Option("--no-reranker", help="Do without: faster; others are simply taken to be worse."),
    ] = False
    generator: Annotated[
        str | None,
        typer.Option(
            "--generator",
            metavar="FOLDER",
            help="Text generator that writes queries too (`embedkit train generation`).",
            show_default=False,
        ),
    ] = None

    def of_training(self) -> list[str]:
        """Name what was given and only training the encoder reads."""
        return ["--no-reranker"] * self.no_reranker + ["--reranker"] * (self.reranker != RERANKER)


@grouped
def adapt(
    documents: options.Files,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder of the adapted model, and of what its stages wrote.",
            show_default=False,
        ),
    ],
    *,
    model: options.SomeModel = None,
    adapting: Adapting,
    helpers: Helpers,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluate",
            metavar="SET",
            help="Scored pairs or a retrieval set FOLDER[:SPLIT], measured before and after; repeatable.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the same command was stopped.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Try a few texts, print what it would take, and stop.")
    ] = False,
    computing: options.ComputingOptions,
    reading: options.ReadingFiles,
    printing: options.Printing,
) -> None:
    """Adapt a model to your own documents, without labels.

    Queries are taken out of the documents (titles, headings, sentences). A linear map is put behind the model: it whitens the vectors by those
    of the documents, so that documents of one subject lie further apart, and learns to rank these as their words and vectors do together.
    That takes about as long as encoding them. With --steps N the encoder is trained first, on hard negatives that it finds itself
    and a cross-encoder judges. A tenth of the passages is held out, and the report says what it brought there, what it did to other texts,
    and whether it is worth keeping. Stopped at any moment, the same command with --resume goes on.
    """
    from embedkit.pipelines.adapting.adapting import Adaptation
    from embedkit.pipelines.adapting.estimate import estimate_adaptation
    from embedkit.pipelines.adapting.folder import AdaptFolder
    from embedkit.pipelines.adapting.recipe import Sources
    from embedkit.training.engine.evaluation_sets import load_evaluation_sets

    recipe = adapting.recipe()
    unread = [*adapting.of_training(), *helpers.of_training()]
    if not recipe.steps and unread:
        raise typer.BadParameter(
            f"{' and '.join(unread)}: this is about training the encoder. Say how long: --steps N"
        )
    sources = Sources(
        inputs=documents,
        reading=reading,
        model=model or ENCODER,
        reranker=None if helpers.no_reranker else helpers.reranker,
        generator=helpers.generator,
        evaluation=load_evaluation_sets(evaluate or []),
        computing=computing,
    )
    adaptation = Adaptation(sources, recipe, AdaptFolder(output))
    try:
        if dry_run:
            show_estimate(estimate_adaptation(sources, adaptation), as_json=printing.as_json)
            return
        _run(adaptation, resume=resume)
    except KeyboardInterrupt:
        if adaptation.folder.settings.is_file():
            console.tell(f"interrupted; resume with:\n  {console.resume_line()}")
        raise typer.Exit(console.INTERRUPTED) from None
    show(adaptation, as_json=printing.as_json)


def _run(adaptation: Adaptation, *, resume: bool) -> None:
    """Go through the stages: a bar for each, and a line where one is done."""
    reports = adaptation.run(resume=resume)
    report = next(reports, None)
    while report is not None:
        stage = report.stage
        with console.progress_bar(stage) as bar:
            while report is not None and report.stage == stage and not report.done:
                bar.update(report.fraction, report.text)
                report = next(reports, None)
        if report is not None and report.done:
            if report.text:
                console.note(f"{report.stage}: {report.text}")
            if report.stage == "queries":
                warn(adaptation)
            report = next(reports, None)
