"""Drawing curves into image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Line = tuple[str, Sequence[float], Sequence[float]]  # name, x, y


def save_lines(lines: Sequence[Line], path: Path, *, x_label: str, y_label: str) -> None:
    """Draw lines over one another into a PNG (or whatever the file's ending says)."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, x, y in lines:
        axes.plot(x, y, label=name, linewidth=1.2, marker="o" if len(x) < 40 else None, markersize=3)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
