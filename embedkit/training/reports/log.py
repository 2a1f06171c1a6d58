"""What the log of a run adds up to, over all the times that it was stopped and resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The held-out loss of contrastive runs stands in their logs under this name too.
SECOND_NAMES = ("held_out_loss",)
# What is said of routers while a run goes on, from its last step, under names that fit a line.
ROUTING_IN_LINE = {"router_entropy": "entropy", "dropped": "dropped", "depth": "depth"}
# The rest of what they measure stands in its log and its summary.
ROUTING_DETAILS = ("experts_used", "depth_")


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A whole run: steps, tokens, the seconds that its steps took, and what the best evaluation measured."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best: Mapping[str, float] = field(default_factory=dict)


def summarize_log(log: Path) -> RunSummary:
    """Read a run's log."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [entry for entry in entries if entry["kind"] == "step"]
    best = [entry for entry in entries if entry["kind"] == "evaluated" and entry["best"]]
    values = best[-1]["values"] if best else {}
    return RunSummary(
        steps=max((entry["step"] for entry in steps), default=0),
        tokens=sum(entry["tokens"] for entry in steps),
        seconds=sum(entry["seconds"] for entry in steps),
        best_step=best[-1]["step"] if best else None,
        best={name: float(value) for name, value in values.items() if value is not None},  # null: not finite
    )


def routing_in_line(values: Mapping[str, float]) -> dict[str, float]:
    """Return what is said of a step's routers; nothing of a model without any."""
    return {short: values[name] for name, short in ROUTING_IN_LINE.items() if name in values}


def without_routing(values: Mapping[str, float]) -> dict[str, float]:
    """Return the other measures."""
    return {
        name: value
        for name, value in values.items()
        if name not in ROUTING_IN_LINE and not name.startswith(ROUTING_DETAILS)
    }


def shown(values: Mapping[str, float]) -> dict[str, float]:
    """Return the measures to show people: each once."""
    return {name: value for name, value in values.items() if name not in SECOND_NAMES}
