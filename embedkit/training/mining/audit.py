"""What was mined, in numbers and examples."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedkit.training.mining.choosing import Mined


@dataclass
class Audit:
    """What was mined, in numbers and examples.

    `suspects` are the candidates that exceed their positive by most: rows whose data lacks a right answer, or has a wrong one.
    """

    rows: int = 0
    rows_without: int = 0
    negatives: int = 0
    candidates: int = 0
    too_near: int = 0
    rows_with_suspects: int = 0
    suspects: list[dict[str, Any]] = field(default_factory=list)  # Any: texts and scores

    def add(self, row: Mined, *, examples: int = 10) -> None:
        self.rows += 1
        self.negatives += len(row.negatives)
        self.rows_without += not row.negatives
        self.candidates += row.candidates
        self.too_near += row.too_near
        if row.likely_positive_score is None or row.positive_score is None:
            return
        self.rows_with_suspects += 1
        entry = {
            "query": row.query,
            "positive": row.positive,
            "likely_positive": row.likely_positive,
            "exceeds_by": round(row.likely_positive_score - row.positive_score, 4),
        }
        self.suspects = sorted([*self.suspects, entry], key=lambda each: -each["exceeds_by"])[:examples]

    def table(self) -> list[tuple[str, str]]:
        """Return (measure, value) rows."""
        share = self.too_near / self.candidates if self.candidates else 0.0
        return [
            ("rows", f"{self.rows:,}"),
            ("negatives a row", f"{self.negatives / max(1, self.rows):.2f}"),
            ("rows without any", f"{self.rows_without:,}"),
            ("candidates looked at", f"{self.candidates:,}"),
            ("left out as likely right", f"{self.too_near:,} ({share:.1%})"),
            ("rows with such a candidate", f"{self.rows_with_suspects:,}"),
        ]


def audit(output: Path, *, examples: int = 10) -> Audit:
    """Read mined rows back and sum them up."""
    result = Audit()
    with output.open(encoding="utf-8") as stream:
        for line in stream:
            result.add(Mined(**json.loads(line)), examples=examples)
    return result
