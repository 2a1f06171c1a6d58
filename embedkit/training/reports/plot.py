"""Loss curves of runs: read from their logs, drawn in the terminal; as PNG by `embedkit.extras.plot`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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


def read_curves(run: str | Path, *, metric: str = "loss") -> list[Curve]:
    """Read a run's log: the metric over the training steps, and over the evaluations of held-out data.

    Raises:
        TrainingError: there is no log, or it knows no such metric.
    """
    path = Path(run) / "training" / "log.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as exc:
        raise TrainingError(
            f"{run}: there is no training/log.jsonl; name the --output folder of a run"
        ) from exc
    points: dict[str, list[tuple[int, float]]] = {"step": [], "evaluated": []}
    known: set[str] = set()
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            kind, step = entry["kind"], entry["step"]
        except (ValueError, KeyError) as exc:
            if number == len(lines):  # being written at this moment
                break
            raise TrainingError(f"{path}:{number}: not a line of a log ({exc}); remove it") from exc
        if kind not in points:
            continue
        values = {
            **entry["values"],
            **{key: entry[key] for key in ("loss", "lr", "grad_norm") if key in entry},
        }
        known |= set(values)
        if values.get(metric) is not None:  # null: what was not finite
            points[kind].append((step, values[metric]))
    if not points["step"] and not points["evaluated"]:
        raise TrainingError(
            f"{path}: no {metric!r} in it; there: {', '.join(sorted(known)) or 'nothing yet'}"
        )
    name = Path(run).name
    labels = {"step": name, "evaluated": f"{name} held out"}
    return [
        Curve(labels[kind], tuple(step for step, _ in found), tuple(value for _, value in found))
        for kind, found in points.items()
        if found
    ]


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
