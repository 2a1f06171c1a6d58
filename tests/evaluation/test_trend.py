from __future__ import annotations

from pathlib import Path

import pytest

from embedkit.errors import EvaluationError
from embedkit.evaluation.results import Evaluation, Provenance, save_evaluation
from embedkit.evaluation.trend import trend


def _save(folder: Path, name: str, *, system: str, created: str, value: float, data: dict[str, str]) -> Path:
    provenance = Provenance(command=(), created=created, data=data, fingerprint=name, versions={})
    path = folder / f"{name}.json"
    save_evaluation(
        path,
        Evaluation(
            kind="retrieval", system=system, dataset="mini", values={"map": value}, provenance=provenance
        ),
    )
    return path


def test_a_trend_follows_each_system_through_time(tmp_path: Path) -> None:
    paths = [
        _save(tmp_path, "b2", system="b", created="2025-02", value=0.5, data={"x": "1"}),
        _save(tmp_path, "a3", system="a", created="2025-03", value=0.75, data={"new/x": "1"}),
        _save(tmp_path, "a1", system="a", created="2025-01", value=0.5, data={"x": "1"}),
        _save(tmp_path, "a4", system="a", created="2025-04", value=0.5, data={"new/x": "2"}),
    ]
    rows = trend(paths, "map")
    assert [(row.fingerprint, row.value, row.change, row.data_changed) for row in rows] == [
        ("a1", 0.5, None, False),
        ("a3", 0.75, 0.25, False),  # the same data in another folder
        ("a4", 0.5, None, True),
        ("b2", 0.5, None, False),
    ]
    assert (rows[0].path, rows[0].created, rows[0].system, rows[0].dataset) == (
        str(paths[2]),
        "2025-01",
        "a",
        "mini",
    )


def test_a_file_without_the_metric_is_an_error(tmp_path: Path) -> None:
    path = _save(tmp_path, "a", system="a", created="2025", value=0.5, data={})
    with pytest.raises(EvaluationError, match=r"a.json: no value of 'mrr'; there are map"):
        trend([path], "mrr")
