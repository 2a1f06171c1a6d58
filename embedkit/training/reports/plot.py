"""Loss curves of runs: read from their logs, drawn in the terminal; as PNG by `embedkit.extras.plot`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedkit.checkpoint.folder import RUN_FOLDER
from embedkit.errors import TrainingError


@dataclass(frozen=True)
class Curve:
    """Numbers of one run over its steps."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    def smoothed(self, points: int) -> Curve:
        """Average stretches of steps, so that at most `points` are left."""
        width = max(1, -(-len(self.steps) // points))
        groups = [slice(i, i + width) for i in range(0, len(self.steps), width)]
        return Curve(
            self.name,
            tuple(self.steps[group][-1] for group in groups),
            tuple(sum(self.values[group]) / len(self.values[group]) for group in groups),
        )


def measures_of(run: str | Path) -> list[str]:
    """Name what a run's log holds over its steps or evaluations, in the order of their first appearance.

    Raises:
        TrainingError: there is no log, or a line in it is none.
    """
    return list(dict.fromkeys(name for _, _, values in _measured(run) for name in values))


def read_curves(run: str | Path, *, metric: str = "loss") -> list[Curve]:
    """Read a run's log: the metric over the steps, and over the evaluations of held-out data.

    Raises:
        TrainingError: there is no log, or it knows no such metric.
    """
    points: dict[str, list[tuple[int, float]]] = {"step": [], "evaluated": []}
    known: set[str] = set()
    for kind, step, values in _measured(run):
        known |= set(values)
        if values.get(metric) is not None:  # null: what was not finite
            points[kind].append((step, values[metric]))
    if not points["step"] and not points["evaluated"]:
        raise TrainingError(
            f"{_log_of(run)}: no {metric!r} in it; there: {', '.join(sorted(known)) or 'nothing yet'}"
        )
    name = Path(run).name.encode("utf-8", "replace").decode()  # whatever draws it takes text only
    labels = {"step": name, "evaluated": f"{name} held out"}
    return [
        Curve(labels[kind], tuple(step for step, _ in found), tuple(value for _, value in found))
        for kind, found in points.items()
        if found
    ]


def _log_of(run: str | Path) -> Path:
    return Path(run) / RUN_FOLDER / "log.jsonl"


def _measured(run: str | Path) -> Iterator[tuple[str, int, dict[str, Any]]]:  # Any: numbers, or null
    """Read the steps and evaluations of a run's log: kind, step and values."""
    path = _log_of(run)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise TrainingError(
            f"{run}: there is no run here (no {RUN_FOLDER}/{path.name}). Name the --output folder of one"
        ) from exc
    except OSError as exc:
        raise TrainingError(f"{path}: cannot be read ({exc.strerror or exc}). Check its permissions") from exc
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            kind, step = entry["kind"], entry["step"]
        except (ValueError, KeyError) as exc:
            if number == len(lines):  # being written at this moment
                break
            raise TrainingError(f"{path}:{number}: not a line of a log ({exc}); remove it") from exc
        if kind in ("step", "evaluated"):
            own = {key: entry[key] for key in ("loss", "lr", "grad_norm") if key in entry}
            yield kind, step, {**entry["values"], **own}


MARKS = "•○▪▫▴▵♦◊"


def terminal_plot(curves: Sequence[Curve], *, width: int = 72, height: int = 16) -> str:
    """Draw curves with characters: one mark a curve, the range of values at the left, the last step at the right."""
    curves = [curve.smoothed(width) for curve in curves]
    low = min(min(curve.values) for curve in curves)
    high = max(max(curve.values) for curve in curves)
    last = max(curve.steps[-1] for curve in curves)
    rows = [[" "] * width for _ in range(height)]
    for curve, mark in zip(curves, MARKS * len(curves), strict=False):
        for step, value in zip(curve.steps, curve.values, strict=True):
            column = min(width - 1, step * width // (last + 1))
            row = round((high - value) / (high - low) * (height - 1)) if high > low else 0
            rows[row][column] = mark
    labels = [f"{high - (high - low) * i / (height - 1):9.3f}" for i in range(height)]
    lines = [f"{label} │{''.join(row).rstrip()}" for label, row in zip(labels, rows, strict=True)]
    lines.append(" " * 10 + "└" + "─" * width)
    lines.append(" " * 11 + "0" + f"step {last:,}".rjust(width - 1))
    lines += [f"{mark} {curve.name}" for curve, mark in zip(curves, MARKS * len(curves), strict=False)]
    return "\n".join(lines)
