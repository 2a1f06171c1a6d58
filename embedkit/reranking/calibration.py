"""From scores to probabilities: a temperature and an offset fitted on held-out pairs, and the error that is left."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.checkpoint.json_files import read_json
from embedkit.errors import CheckpointError, EvaluationError
from embedkit.storage.files import write_text

FILE = "calibration.json"
NUM_BINS = 15  # Guo et al. 2017, section 4
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Turns a logit into a probability: sigmoid((logit - offset) / temperature).

    `error_before` and `error_after` are expected calibration errors on the `num_pairs` it was fitted on: the mean distance of
    probability and truth, 0 to 1.
    """

    temperature: float
    offset: float
    num_pairs: int
    error_before: float
    error_after: float

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf or not math.isfinite(self.offset):
            raise ValueError(
                f"temperature {self.temperature} and offset {self.offset} must be finite, the first above 0"
            )

    def probabilities(self, logits: npt.ArrayLike) -> Floats:
        """Return the probability that each pair is relevant; the shape is that of the logits."""
        return _sigmoid((np.asarray(logits, dtype=np.float64) - self.offset) / self.temperature)


def fit_calibration(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Calibration:
    """Fit temperature and offset by maximum likelihood (Newton's method), on pairs that training has not seen.

    Temperature alone would do for a model trained with binary cross-entropy; a ranking loss leaves the zero anywhere.

    Shapes:
        logits: (N,); labels: (N,) of 0 and 1
    Raises:
        EvaluationError: the labels are all alike, not 0 and 1, or the logits are all alike, tell the two apart without a
            mistake or are not larger for relevant pairs: no finite temperature fits.
    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2; with the offset it is Platt 1999.
    """
    x, y = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"logits have shape {x.shape}, labels {y.shape}; wanted (N,) of both")
    if set(np.unique(y)) != {0.0, 1.0}:
        found = ", ".join(f"{value:g}" for value in np.unique(y)[:5]) or "none"
        raise EvaluationError(
            f"{len(y)} labels with the values {found}; calibration needs some 0 and some 1. Give pairs of both kinds"
        )
    if x.min() == x.max():
        raise EvaluationError(
            f"all {len(x)} pairs have the same score, {x[0]:g}, which tells nothing apart. Check texts and model"
        )
    if x[y == 1].min() >= x[y == 0].max():
        raise EvaluationError(
            f"the scores of {len(y)} pairs tell relevant from irrelevant without a mistake, so that no finite temperature "
            "fits. Give more or harder pairs"
        )
    slope, bias = _newton(x, y)
    if slope <= 0:
        raise EvaluationError(
            f"among {len(y)} pairs, those that are relevant do not score higher than the others. Give more pairs, or check labels and model"
        )
    fitted = _sigmoid(slope * x + bias)
    return Calibration(
        temperature=float(1 / slope),
        offset=float(-bias / slope),
        num_pairs=len(y),
        error_before=expected_calibration_error(_sigmoid(x), y),
        error_after=expected_calibration_error(fitted, y),
    )


def _newton(x: Floats, y: Floats) -> tuple[float, float]:
    """Minimize the mean cross-entropy of sigmoid(slope * x + bias): convex, and quadratic near the end."""
    scale = float(x.std()) or 1.0
    z = (x - x.mean()) / scale
    design = np.stack([z, np.ones_like(z)], axis=1)  # (N, 2)
    weights = np.zeros(2)

    def loss(w: Floats) -> float:
        margin = design @ w
        return float(np.mean(np.logaddexp(0.0, margin) - y * margin))

    for _ in range(100):
        p = _sigmoid(design @ weights)
        gradient = design.T @ (p - y) / len(y)
        if np.abs(gradient).max() < 1e-10:
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design / len(y) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-10 and loss(weights - size * step) > loss(weights):
            size /= 2
        weights = weights - size * step
    slope = float(weights[0]) / scale
    return slope, float(weights[1] - weights[0] * x.mean() / scale)


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the mean distance, over 15 equal bins weighted by size, of mean probability and share of relevant pairs.

    Source: Guo et al. 2017, eq. 3.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    bins = np.minimum((p * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    gaps = np.abs(
        np.bincount(bins, weights=p, minlength=NUM_BINS) - np.bincount(bins, weights=y, minlength=NUM_BINS)
    )
    return float(gaps.sum() / len(p))


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 0.5 * (1 + np.tanh(0.5 * x))  # does not overflow
    return result


def write_calibration(folder: str | Path, calibration: Calibration) -> None:
    """Write a calibration beside a model.

    Raises:
        OutputError: the folder cannot be written to.
    """
    write_text(Path(folder) / FILE, json.dumps(asdict(calibration), indent=2) + "\n")


def read_calibration(folder: str | Path) -> Calibration:
    """Read the calibration beside a model.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path}: there is no such file, so scores cannot be turned into probabilities. "
            "Fit one on held-out pairs with: embedkit rerank --calibrate PAIRS --model FOLDER"
        )
    content = read_json(path, None)
    try:
        return Calibration(**content)
    except (TypeError, ValueError) as exc:
        raise CheckpointError(f"{path}: not a calibration ({exc}). Fit it again") from exc
