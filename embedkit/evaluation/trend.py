"""How a metric moved over saved results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedkit.errors import EvaluationError
from embedkit.evaluation.results import Evaluation, load_evaluation


@dataclass(frozen=True, slots=True)
class TrendRow:
    """One saved result. `change` is against the one before of the same system and data set.

    None where there is none before, or where the data files changed in between (`data_changed`): such values do not
    compare.
    """

    path: str
    created: str
    dataset: str
    system: str
    fingerprint: str
    value: float
    change: float | None
    data_changed: bool


def trend(paths: Sequence[str | Path], metric: str) -> list[TrendRow]:
    """Read saved evaluations and follow one metric through time, for each data set and system.

    Raises:
        RecordError: a file cannot be read.
        EvaluationError: a file does not hold the metric.
    """
    found = []
    for path in paths:
        evaluation = load_evaluation(path)
        if metric not in evaluation.values:
            raise EvaluationError(
                f"{path}: no value of {metric!r}; there are {', '.join(evaluation.values) or 'none'}. "
                "Name one of these, or leave the file out"
            )
        found.append((evaluation, str(path)))
    found.sort(key=lambda each: (each[0].dataset, each[0].system, each[0].provenance.created))
    rows: list[TrendRow] = []
    latest: dict[tuple[str, str], Evaluation] = {}
    for evaluation, path in found:
        place = (evaluation.dataset, evaluation.system)
        before = latest.get(place)
        changed = before is not None and _data_hashes(before) != _data_hashes(evaluation)
        value = evaluation.values[metric]
        change = None if before is None or changed else value - before.values[metric]
        provenance = evaluation.provenance
        rows.append(
            TrendRow(path, provenance.created, *place, provenance.fingerprint, value, change, changed)
        )
        latest[place] = evaluation
    return rows


def _data_hashes(evaluation: Evaluation) -> list[str]:
    # Without names: the same data may have moved to another folder.
    return sorted(evaluation.provenance.data.values())
