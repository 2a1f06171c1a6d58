"""What all training commands share: their common options, the recipe, stopping by Ctrl-C, the run itself."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from ..shared import console, options
from ..shared.completing import complete_recipe
from .progress import View, show_estimate, summarize

if TYPE_CHECKING:
    from embedkit.training.engine.journey import Journey
    from embedkit.training.engine.ranks import Ranks
    from embedkit.training.engine.recipes import OptimRecipe, RunRecipe
    from embedkit.training.engine.run_folder import RunFolder

R = TypeVar("R")
RUN = "The run"  # the panel of how it goes, whatever is trained


@dataclass(frozen=True, kw_only=True)
class Running(options.Printing):
    """How a training run goes, whatever it trains."""

    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder of the run, and of the model in the end.",
            show_default=False,
        ),
    ]
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            autocompletion=complete_recipe,
            help="TOML file with settings, or a shipped recipe's name (`embedkit recipes list`), over the preset's.",
            show_default=False,
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", metavar="N", min=1, help="Optimizer steps. Default: the recipe's.", show_default=False
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting, such as optim.lr=1e-4; repeatable, wins over all.",
            show_default=False,
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", rich_help_panel=RUN, help="Go on with the run in --output from its last checkpoint."
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            rich_help_panel=RUN,
            help="Measure a few steps, print what the run would take, and stop.",
        ),
    ] = False
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard",
            rich_help_panel=RUN,
            metavar="DIR",
            help="Write the curves for TensorBoard too.",
            show_default=False,
        ),
    ] = None
    device: options.DeviceOption = "auto"
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            rich_help_panel=RUN,
            metavar="N",
            min=1,
            help="Threads to compute with. Default: torch's.",
            show_default=False,
        ),
    ] = None

    @contextmanager
    def ranks(self) -> Iterator[Ranks]:
        """Check the output folder, set the threads, and join the other processes of the run.

        A Ctrl-C that no step catches says what to do next.
        """
        from embedkit.training.engine.ranks import launched

        if not self.dry_run:
            self.folder.check_place(resume=self.resume)
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        try:
            with launched(self.device) as ranks:
                yield ranks
        except KeyboardInterrupt:
            if (self.folder.path / "run.json").is_file():
                console.tell(f"interrupted; resume with:\n  {_resume_line()}")
            else:
                console.tell(
                    f"interrupted before the first step; start again with:\n  {console.command_line()}"
                )
            raise typer.Exit(console.INTERRUPTED) from None

    def silent(self, ranks: Ranks) -> bool:
        """Say whether another process speaks in place of this one."""
        return not ranks.first

    @property
    def folder(self) -> RunFolder:
        from embedkit.training.engine.run_folder import RunFolder

        return RunFolder(self.output)


class Recipe(Protocol):
    """What the recipes of all journeys have."""

    @property
    def run(self) -> RunRecipe: ...

    @property
    def optim(self) -> OptimRecipe: ...


@contextmanager
def stopping() -> Iterator[Event]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop after the step at hand; the second acts as ever."""
    stop = Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stop.set()
        with suppress(OSError):  # not through a stream, which may be in the middle of a write
            os.write(2, b"stopping after this step; the state is saved\n")

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resolve(
    kind: type[R], running: Running, *, task: str, preset: str | None, flags: Mapping[str, object]
) -> R:
    """Build the recipe: preset, file, the command's own options, then --set, each over the one before."""
    from embedkit.recipe import load_recipe

    given = {"run.steps": running.steps, **flags}
    values = {key: value for key, value in given.items() if value is not None}
    return load_recipe(
        kind, task=task, preset=preset, path=running.recipe, values=values, overrides=running.settings or ()
    )


def refuse_shapes(running: Running, *fixed: str) -> None:
    """Refuse `--set` for parts of a model that is there already: they have their own shapes."""
    for setting in running.settings or ():
        part = setting.partition(".")[0].strip()
        if part in fixed:
            raise typer.BadParameter(
                f"--set {setting}: the model to start from has its {part} already, of a shape of its own"
            )


def numbers(text: str | None) -> list[int | str] | None:
    """Read an option of whole numbers with commas between; what is none stays a word, which the recipe refuses by its key."""
    if text is None:
        return None
    return [_whole(word.strip()) for word in text.strip().removesuffix(",").split(",") if text.strip()]


def _whole(word: str) -> int | str:
    try:
        return int(word)
    except ValueError:
        return word


def run(journey: Journey, recipe: Recipe, running: Running, *, label: str, ranks: Ranks) -> None:
    """Run a journey to its end, or estimate it; ends the command with 130 where it was stopped before its end."""
    from embedkit.extras import load_extra
    from embedkit.training.engine.estimate import estimate, matmul_peak
    from embedkit.training.engine.loop import train
    from embedkit.training.engine.reporting import scalars
    from embedkit.training.engine.run_precision import with_precision

    ranks = with_precision(ranks, recipe.run, running.folder if running.resume else None)
    chosen = ranks.precision
    assert chosen is not None
    quiet, steps = running.silent(ranks), recipe.run.steps
    if chosen.seconds is not None and not quiet:
        console.note(chosen.described())
    if running.dry_run:
        found = estimate(journey, recipe.run, recipe.optim, ranks=ranks)
        if ranks.first:
            show_estimate(found, as_json=running.as_json)
        return
    board = None
    if running.tensorboard is not None and ranks.first:
        board = load_extra("tensorboard", purpose="--tensorboard").Board(running.tensorboard)
    with stopping() as stop:
        reports = train(
            journey,
            recipe.run,
            recipe.optim,
            folder=running.folder,
            ranks=ranks,
            resume=running.resume,
            stop=stop,
        )
        view = View(steps, matmul_peak(ranks.device, chosen.format) * ranks.world)
        with console.progress_bar(label, quiet=quiet) as bar:
            for report in reports:
                view.take(report)
                bar.update(view.step / steps, view.text())
                if view.news and not quiet and (view.resumed or not sys.stderr.isatty()):
                    console.note(view.news)
                if board is not None:
                    board.add(*scalars(report), report.step)
    if not ranks.first:
        raise typer.Exit(0 if view.finished else console.INTERRUPTED)
    if not view.finished:
        console.tell(f"stopped after step {view.step:,} of {steps:,}; resume with:\n  {_resume_line()}")
        raise typer.Exit(console.INTERRUPTED)
    summarize(running.folder, as_json=running.as_json)


def _resume_line() -> str:
    """Return the command line that goes on with this run; on several devices it is started as before."""
    line, started = console.resume_line(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if started == 1:
        return line
    return f"torchrun --nproc-per-node {started} $(which embedkit) {line.removeprefix('embedkit ')}"
