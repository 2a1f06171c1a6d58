"""What all training commands share: the live view, stopping by Ctrl-C, the summary, the dry run."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ..shared import console

if TYPE_CHECKING:
    from embedkit.training.engine.estimate import Estimate
    from embedkit.training.engine.loop import Journey, Report
    from embedkit.training.engine.ranks import Ranks
    from embedkit.training.engine.recipes import OptimRecipe, RunRecipe
    from embedkit.training.engine.run_folder import RunFolder

R = TypeVar("R")

Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder of the run, and of the model in the end.",
        show_default=False,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N", min=1, help="Optimizer steps. Default: the recipe's.", show_default=False
    ),
]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="TOML file with settings, or a shipped recipe's name (`embedkit recipes list`), over the preset's.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, such as optim.lr=1e-4; repeatable, wins over all.",
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --output from its last state.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Measure a few steps, print what the run would take, and stop.")
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", metavar="N", min=1, help="Threads to compute with. Default: torch's.", show_default=False
    ),
]


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


def resolve(
    kind: type[R],
    *,
    preset: str | None,
    path: Path | None,
    flags: Mapping[str, object],
    settings: Sequence[str] | None,
) -> R:
    """Build the recipe: preset, file, the command's own options, then --set, each over the one before."""
    from embedkit.recipe import load_recipe

    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    return load_recipe(kind, preset=preset, path=path, overrides=[*given, *(settings or ())])


def set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def run(
    journey: Journey,
    recipe: RunRecipe,
    optim: OptimRecipe,
    folder: RunFolder,
    *,
    label: str,
    ranks: Ranks,
    resume: bool,
    dry_run: bool,
    tensorboard: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a journey to its end, or estimate it; ends the command with 130 where it was stopped before its end."""
    from embedkit.extras import load_extra
    from embedkit.training.engine.estimate import estimate, matmul_peak
    from embedkit.training.engine.loop import scalars, train

    if dry_run:
        found = estimate(journey, recipe, optim, ranks=ranks)
        if ranks.first:
            _show_estimate(found, as_json=as_json)
        return
    board = None
    if tensorboard is not None and ranks.first:
        board = load_extra("tensorboard", purpose="--tensorboard").Board(tensorboard)
    with stopping() as stop:
        reports = train(journey, recipe, optim, folder, ranks=ranks, resume=resume, stop=stop)
        peak = matmul_peak(ranks.device, recipe.precision) * ranks.world
        view = _View(recipe.steps, peak)
        with console.progress_bar(label, quiet=quiet) as bar:
            for report in reports:
                view.take(report)
                bar.update(view.step / recipe.steps, view.text())
                if view.news and not quiet and not sys.stderr.isatty():
                    console.note(view.news)
                if board is not None:
                    board.add(*scalars(report), report.step)
    if not ranks.first:
        raise typer.Exit(0 if view.finished else 130)
    if not view.finished:
        console.note(f"stopped after step {view.step:,} of {recipe.steps:,}; go on with:\n  {_resume_line()}")
        raise typer.Exit(130)
    _summarize(view, str(folder.output), as_json=as_json)


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
