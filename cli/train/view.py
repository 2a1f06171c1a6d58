"""What all training commands share: the live view, stopping by Ctrl-C, the summary, the dry run."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

from ..shared import console, options

if TYPE_CHECKING:
    from embedkit.training.engine.estimate import Estimate
    from embedkit.training.engine.loop import Journey, Report
    from embedkit.training.engine.ranks import Ranks
    from embedkit.training.engine.recipes import OptimRecipe, RunRecipe
    from embedkit.training.engine.run_folder import RunFolder

R = TypeVar("R")


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
        bool, typer.Option("--resume", help="Go on with the run in --output from its last checkpoint.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure a few steps, print what the run would take, and stop.")
    ] = False
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard", metavar="DIR", help="Write the curves for TensorBoard too.", show_default=False
        ),
    ] = None
    device: options.DeviceOption = "auto"
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            min=1,
            help="Threads to compute with. Default: torch's.",
            show_default=False,
        ),
    ] = None

    @contextmanager
    def ranks(self) -> Iterator[Ranks]:
        """Check the output folder, set the threads, and join the other processes of the run."""
        from embedkit.training.engine.ranks import launched

        if not self.dry_run:
            self.folder.check_place(resume=self.resume)
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        with launched(self.device) as ranks:
            yield ranks

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
        console.note("stopping after this step; the state is saved")

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resolve(kind: type[R], running: Running, *, preset: str | None, flags: Mapping[str, object]) -> R:
    """Build the recipe: preset, file, the command's own options, then --set, each over the one before."""
    from embedkit.recipe import load_recipe

    given = {"run.steps": running.steps, **flags}
    values = {key: value for key, value in given.items() if value is not None}
    texts = [f"{key}={_toml(value)}" for key, value in values.items()]
    return load_recipe(
        kind, preset=preset, path=running.recipe, overrides=[*texts, *(running.settings or ())]
    )


def integers(option: str, text: str) -> list[int]:
    """Read numbers with commas between, as the value of an option."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{option} is {text!r}; wanted whole numbers with commas between") from None


def _toml(value: object) -> str:
    import json

    return json.dumps(value)


def run(journey: Journey, recipe: Recipe, running: Running, *, label: str, ranks: Ranks) -> None:
    """Run a journey to its end, or estimate it; ends the command with 130 where it was stopped before its end."""
    from embedkit.extras import load_extra
    from embedkit.training.engine.estimate import estimate, matmul_peak
    from embedkit.training.engine.loop import scalars, train

    if running.dry_run:
        found = estimate(journey, recipe.run, recipe.optim, ranks=ranks)
        if ranks.first:
            _show_estimate(found, as_json=running.as_json)
        return
    board = None
    if running.tensorboard is not None and ranks.first:
        board = load_extra("tensorboard", purpose="--tensorboard").Board(running.tensorboard)
    quiet, steps = running.quiet or not ranks.first, recipe.run.steps
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
        view = _View(steps, matmul_peak(ranks.device, recipe.run.precision) * ranks.world)
        with console.progress_bar(label, quiet=quiet) as bar:
            for report in reports:
                view.take(report)
                bar.update(view.step / steps, view.text())
                if view.news and not quiet and not sys.stderr.isatty():
                    console.note(view.news)
                if board is not None:
                    board.add(*scalars(report), report.step)
    if not ranks.first:
        raise typer.Exit(0 if view.finished else 130)
    if not view.finished:
        console.note(f"stopped after step {view.step:,} of {steps:,}; go on with:\n  {_resume_line()}")
        raise typer.Exit(130)
    _summarize(view, str(running.output), as_json=running.as_json)


class _View:
    """The numbers to look at: smoothed where they jitter."""

    def __init__(self, steps: int, peak_flops: float) -> None:
        self._steps, self._peak = steps, peak_flops
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.finished = False
        self.loss = self.speed = self.share = float("nan")
        self.held_out: dict[str, float] = {}
        self.best: dict[str, Any] = {}
        self.news = ""

    def take(self, report: Report) -> None:
        from embedkit.training.engine.loop import Evaluated, Resumed, Saved, Step

        self.news = ""
        self.step = report.step
        match report:
            case Step():
                self._smooth(
                    report.loss, report.tokens / report.seconds, report.flops / report.seconds / self._peak
                )
                self.tokens += report.tokens
                self.seconds += report.seconds
            case Evaluated():
                self.held_out = dict(report.values)
                if report.best:
                    self.best = {"best_step": self.step, **self.held_out}
                self.news = f"step {self.step:,} of {self._steps:,}: {self.text()}"
            case Resumed():
                self.news = f"going on after step {self.step:,}"
            case Saved():
                self.finished = report.finished

    def _smooth(self, loss: float, speed: float, share: float) -> None:
        """Let each number follow its last twenty values or so; the first stands alone."""
        keep = 0.0 if self.loss != self.loss else 0.95
        old = (self.loss, self.speed, self.share) if keep else (0.0, 0.0, 0.0)
        new = zip(old, (loss, speed, share), strict=True)
        self.loss, self.speed, self.share = (keep * before + (1 - keep) * now for before, now in new)

    def text(self) -> str:
        held = "".join(f"  {name} {value:.3f}" for name, value in self.held_out.items())
        held = f"  held out{held}" if held else ""
        return f"loss {self.loss:.3f}{held}  {self.speed:,.0f} tokens/s  {self.share:.0%} of peak"


def _summarize(view: _View, output: str, *, as_json: bool) -> None:
    numbers = {
        "output": output,
        "steps": view.step,
        "tokens": view.tokens,
        "seconds": round(view.seconds, 1),
        **view.best,
    }
    if console.wants_json(as_json):
        console.print_json(numbers)
        return
    console.print_table(("measure", "value"), [(name, _number(value)) for name, value in numbers.items()])


def _show_estimate(estimate: Estimate, *, as_json: bool) -> None:
    """Print what a run would take."""
    if console.wants_json(as_json):
        console.print_json(asdict(estimate))
        return
    hours, rest = divmod(round(estimate.seconds), 3600)
    rows = [
        ("parameters", f"{estimate.parameters:,}"),
        ("of them trained", f"{estimate.trained_parameters:,}"),
        ("steps", f"{estimate.steps:,}"),
        ("tokens a step", f"{estimate.tokens_per_step:,.0f}"),
        ("tokens", f"{estimate.tokens:,.0f}"),
        ("precision", estimate.precision),
        ("tokens a second", f"{estimate.tokens_per_second:,.0f}"),
        ("share of the machine's matmul peak", f"{estimate.share_of_peak:.0%}"),
        ("memory", f"{estimate.memory_bytes / 1e9:.2f} GB"),
        ("disk for states and model", f"{estimate.disk_bytes / 1e9:.2f} GB"),
        ("time", f"{hours} h {rest // 60} min {rest % 60} s" if hours else f"{rest // 60} min {rest % 60} s"),
    ]
    console.print_table(("measure", "value"), rows)


def _number(value: Any) -> str:  # Any: a string or a number
    if isinstance(value, float):
        return f"{value:,.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _resume_line() -> str:
    """Return the command line that goes on with this run."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return shlex.join(["embedkit", *arguments, "--resume"])
