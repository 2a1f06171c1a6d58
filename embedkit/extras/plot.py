"""Drawing curves into image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import BinaryIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from embedkit.errors import OutputError

Line = tuple[str, Sequence[float], Sequence[float]]  # name, x, y


def save_lines(lines: Sequence[Line], stream: BinaryIO, *, name: str, x_label: str, y_label: str) -> None:
    """Draw lines over one another into an image of the kind that the ending of a file's name says, else a PNG.

    Raises:
        OutputError: the ending is of no kind of image.
    """
    kinds, kind = FigureCanvasAgg.get_supported_filetypes(), PurePath(name).suffix.removeprefix(".").lower()
    if kind and kind not in kinds:
        raise OutputError(
            f"{name}: the ending is {kind!r}; a plot is written as {', '.join(sorted(kinds))}. Choose one of these"
        )
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, x, y in lines:
        axes.plot(x, y, label=name, linewidth=1.2, marker="o" if len(x) < 40 else None, markersize=3)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(stream, dpi=110, format=kind or "png")
