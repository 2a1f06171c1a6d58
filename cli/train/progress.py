"""What a training command shows: the live view, the summary of a run, the estimate of a dry run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..shared import console

if TYPE_CHECKING:
    from embedkit.training.engine.estimate import Estimate
    from embedkit.training.engine.reporting import Report
    from embedkit.training.engine.run_folder import RunFolder


class View:
    """The numbers to look at: smoothed where they jitter."""

    def __init__(self, steps: int, peak_flops: float) -> None:
        self._steps, self._peak = steps, peak_flops
        self.step = 0
        self.finished = False
        self.loss = self.speed = self.share = float("nan")
        self.held_out: dict[str, float] = {}
        self.routing: dict[str, float] = {}  # of the last step
        self.news = ""
        self.resumed = False  # by the last report

    def take(self, report: Report) -> None:
        from embedkit.training.engine.reporting import Evaluated, Resumed, Saved, Step
        from embedkit.training.reports.log import routing_in_line, shown, without_routing

        self.news = ""
        self.step = report.step
        self.resumed = isinstance(report, Resumed)
        match report:
            case Step():
                self.routing = routing_in_line(report.values)
                self._smooth(
                    report.loss, report.tokens / report.seconds, report.flops / report.seconds / self._peak
                )
            case Evaluated():
                self.held_out = without_routing(shown(report.values))
                self.news = f"step {self.step:,} of {self._steps:,}: {self.text()}"
            case Resumed():
                self.news = f"going on after step {self.step:,}"
                if report.ended:
                    self.news = f"the run ended after step {self.step:,}; its model is written again"
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
        routing = "".join(f"  {name} {value:.3g}" for name, value in self.routing.items())
        return f"loss {self.loss:.3f}{held}{routing}  {self.speed:,.0f} tokens/s  {self.share:.0%} of peak"


def summarize(folder: RunFolder, *, as_json: bool) -> None:
    """Say what the whole run took and reached, also where it was stopped and resumed."""
    from embedkit.training.reports.log import shown, summarize_log

    found = summarize_log(folder.log_path)
    numbers = {
        "output": str(folder.output),
        "steps": found.steps,
        "tokens": found.tokens,
        "seconds": round(found.seconds, 1),
    }
    best = {} if found.best_step is None else {"best_step": found.best_step}
    if console.wants_json(as_json):
        console.print_json({**numbers, **best, **found.best})
        return
    rows = {**numbers, "seconds": f"{found.seconds:,.1f}", **best, **shown(found.best)}
    console.print_table(("measure", "value"), [(name, _number(value)) for name, value in rows.items()])


def show_estimate(estimate: Estimate, *, as_json: bool) -> None:
    """Print what a run would take."""
    if console.wants_json(as_json):
        console.print_json(asdict(estimate))
        return
    hours, rest = divmod(round(estimate.seconds), 3600)
    rows = [
        ("parameters", f"{estimate.parameters:,}"),
        ("trained parameters", f"{estimate.trained_parameters:,}"),
        ("steps", f"{estimate.steps:,}"),
        ("tokens per step", f"{estimate.tokens_per_step:,.0f}"),
        ("tokens", f"{estimate.tokens:,.0f}"),
        ("precision", estimate.precision),
        ("tokens per second", f"{estimate.tokens_per_second:,.0f}"),
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
