"""Calibration: worked examples, recovery of known parameters, and the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import CheckpointError, EvaluationError, OutputError
from embedkit.reranking.calibration import (
    Calibration,
    expected_calibration_error,
    fit_calibration,
    read_calibration,
    write_calibration,
)
from tests.full_disk import files_limited_to


def sample(temperature: float, offset: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels for which (temperature, offset) is the truth."""
    rng = np.random.default_rng(0)
    logits = rng.normal(offset, 3 * temperature, count)
    p = 1 / (1 + np.exp(-(logits - offset) / temperature))
    return logits, (rng.random(count) < p).astype(int)


@pytest.mark.parametrize(("temperature", "offset"), [(1.0, 0.0), (4.0, -7.0), (0.2, 30.0)])
def test_fit_finds_the_temperature_and_offset_that_made_the_labels(temperature: float, offset: float) -> None:
    fitted = fit_calibration(*sample(temperature, offset))
    assert fitted.temperature == pytest.approx(temperature, rel=0.05)
    assert fitted.offset == pytest.approx(offset, abs=0.1 * temperature)
    assert fitted.error_after < 0.01
    assert fitted.error_after <= fitted.error_before + 0.005
    assert fitted.num_pairs == 20_000


def test_fit_agrees_with_scipys_minimum() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    logits, labels = sample(2.0, 1.0, 400)

    def loss(parameters: np.ndarray) -> float:
        margin = parameters[0] * logits + parameters[1]
        return float(np.mean(np.logaddexp(0, margin) - labels * margin))

    slope, bias = optimize.minimize(loss, [1.0, 0.0], tol=1e-12).x
    fitted = fit_calibration(logits, labels)
    assert fitted.temperature == pytest.approx(1 / slope, rel=1e-4)
    assert fitted.offset == pytest.approx(-bias / slope, rel=1e-3)


def test_calibration_keeps_the_order() -> None:
    logits = np.linspace(-5, 5, 21)
    calibration = Calibration(temperature=2.0, offset=1.0, num_pairs=1, error_before=0, error_after=0)
    assert (np.diff(calibration.probabilities(logits)) > 0).all()
    assert calibration.probabilities(1.0) == 0.5


def test_calibration_error_by_hand() -> None:
    """Two pairs at 0.8, one relevant: |1.6 - 1| = 0.6; two at 0.1, none: 0.2; together 0.8 over 4 pairs = 0.2."""
    assert expected_calibration_error([0.8, 0.8, 0.1, 0.1], [1, 0, 0, 0]) == pytest.approx(0.2)
    assert expected_calibration_error([1.0, 0.0], [1, 0]) == 0


def test_labels_that_do_not_do_are_refused() -> None:
    with pytest.raises(
        EvaluationError, match="3 labels with the values 1; calibration needs some 0 and some 1"
    ):
        fit_calibration([1, 2, 3], [1, 1, 1])
    with pytest.raises(EvaluationError, match="2 labels with the values 0, 2; calibration needs"):
        fit_calibration([1, 2], [0, 2])
    with pytest.raises(EvaluationError, match="0 labels with the values none"):
        fit_calibration([], [])
    with pytest.raises(
        EvaluationError, match="the scores of 4 pairs tell relevant from irrelevant without a mistake"
    ):
        fit_calibration([1, 2, 3, 4], [0, 0, 1, 1])
    with pytest.raises(EvaluationError, match=r"among 4 pairs, those that are relevant do not score higher"):
        fit_calibration([1, 2, 3, 4], [1, 0, 1, 0])
    with pytest.raises(EvaluationError, match=r"all 4 pairs have the same score, 0\.5, which tells nothing"):
        fit_calibration([0.5] * 4, [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"logits have shape \(2,\), labels \(3,\)"):
        fit_calibration([1, 2], [0, 1, 1])


def test_file_is_read_as_written_and_damage_is_told(tmp_path: Path) -> None:
    calibration = fit_calibration(*sample(2.0, 1.0, 100))
    write_calibration(tmp_path, calibration)
    assert read_calibration(tmp_path) == calibration
    with pytest.raises(OutputError, match=r"none/calibration\.json: cannot be written"):
        write_calibration(tmp_path / "none", calibration)
    with files_limited_to(10), pytest.raises(OutputError, match=r"calibration\.json: cannot be written"):
        write_calibration(tmp_path, fit_calibration(*sample(1.0, 0.0, 100)))
    assert read_calibration(tmp_path) == calibration  # that of before, whole
    (tmp_path / "calibration.json").write_text('{"temperature": 0}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"calibration.json: not a calibration \(.*Fit it again"):
        read_calibration(tmp_path)
    (tmp_path / "calibration.json").write_text(
        '{"temperature": 0, "offset": 1, "num_pairs": 1, "error_before": 0, "error_after": 0}',
        encoding="utf-8",
    )
    with pytest.raises(
        CheckpointError, match=r"temperature 0 and offset 1 must be finite, the first above 0"
    ):
        read_calibration(tmp_path)
