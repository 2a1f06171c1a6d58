"""`embedkit train plot`: the curves of runs, in the terminal and as an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..shared import console
from ..shared.completing import complete_measure

EXAMPLES = """\b
Examples:
  embedkit train plot encoder
  embedkit train plot run-a run-b --metric accuracy --output curves.png
"""


def train_plot(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Output folders of runs, finished or not.", show_default=False),
    ],
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="What to draw: loss, accuracy, lr, grad_norm …",
            autocompletion=complete_measure,
        ),
    ] = "loss",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write an image (.png, .svg, .pdf) as well.",
            show_default=False,
        ),
    ] = None,
    points: Annotated[
        int,
        typer.Option(
            "--points", metavar="N", min=2, help="Average each curve of the image down to so many points."
        ),
    ] = 200,
) -> None:
    """Draw the loss of runs, or another measure, over their steps: of each step, and on held-out data."""
    from embedkit.extras import load_extra
    from embedkit.storage.files import atomic_file
    from embedkit.training.reports.plot import read_curves, terminal_plot

    curves = [curve for run in runs for curve in read_curves(run, metric=metric)]
    console.say(terminal_plot(curves))
    if output is not None:
        plot = load_extra("plot", purpose=f"writing {output}")
        lines = [
            (curve.name, curve.steps, curve.values) for curve in (curve.smoothed(points) for curve in curves)
        ]
        with atomic_file(output) as stream:
            plot.save_lines(lines, stream, name=output.name, x_label="step", y_label=metric)
        console.note(f"wrote {output}")
