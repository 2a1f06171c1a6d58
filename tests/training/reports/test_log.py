"""What a log adds up to."""

from __future__ import annotations

import json
from pathlib import Path

from embedkit.training.reports.log import RunSummary, shown, summarize_log


def test_a_log_counts_the_whole_run_and_its_best_evaluation(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"kind": "step", "step": i, "tokens": 10 * i, "seconds": 0.5} for i in (1, 2, 3)
    ]
    rows += [
        {"kind": "evaluated", "step": 2, "values": {"loss": 1.5, "held_out_loss": 1.5}, "best": True},
        {"kind": "evaluated", "step": 3, "values": {"loss": 2.5, "held_out_loss": 2.5}, "best": False},
        {"kind": "saved", "step": 3, "path": "run", "finished": True},
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    best = {"loss": 1.5, "held_out_loss": 1.5}
    assert summarize_log(log) == RunSummary(steps=3, tokens=60, seconds=1.5, best_step=2, best=best)
    assert shown(best) == {"loss": 1.5}
    log.write_text("", encoding="utf-8")
    assert summarize_log(log) == RunSummary()
