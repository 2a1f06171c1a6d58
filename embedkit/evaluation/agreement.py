"""How well numbers agree with labels: correlation, pair classification and clusterings. Pure functions in float64."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedkit.errors import EvaluationError

Floats = NDArray[np.float64]


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Compute the linear correlation of two rows of numbers, in [-1, 1].

    >>> round(pearson([1, 2, 3], [1, 2, 4]), 6)  # 3 / sqrt(2 * 14/3)
    0.981981

    Shapes:
        x, y: (N,), N >= 2
    Raises:
        EvaluationError: there are fewer than 2 pairs, a number is not finite, or all on one side are equal.
    """
    first, second = _two_rows(x, y)
    # Scaling first keeps squares of tiny or huge numbers in range.
    first, second = (row / np.abs(row).max() for row in (first, second))
    first, second = (row - row.mean() for row in (first, second))
    first, second = (row / np.linalg.norm(row) for row in (first, second))
    return float(np.clip(first @ second, -1.0, 1.0))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Compute the correlation of ranks, ties sharing the mean of their ranks.

    >>> round(spearman([1, 2, 3, 4], [1, 3, 3, 9]), 6)  # ranks 1 2 3 4 and 1 2.5 2.5 4: 4.5 / sqrt(5 * 4.5)
    0.948683

    Raises: as `pearson`.
    """
    first, second = _two_rows(x, y)
    return pearson(average_ranks(first), average_ranks(second))


def average_ranks(x: ArrayLike) -> Floats:
    """Number the values from 1, lowest first; equal ones share the mean of their ranks.

    >>> average_ranks([5, 2, 5, 9]).tolist()
    [2.5, 1.0, 2.5, 4.0]
    """
    _, group, counts = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2.0)[group]
    return ranks


def _two_rows(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"x has shape {first.shape}, y {second.shape}; both must be (N,)")
    if len(first) < 2:
        raise EvaluationError(f"a correlation needs at least 2 pairs; there are {len(first)}. Give more")
    for name, row in (("first", first), ("second", second)):
        _refuse_not_finite(row, f"the {name} row")
        if (row == row[0]).all():
            raise EvaluationError(
                f"all {len(row)} numbers of the {name} row are {row[0]:g}; a correlation needs at least two different "
                "ones. Look at what made them"
            )
    return first, second


def _refuse_not_finite(row: Floats, what: str) -> None:
    finite = np.isfinite(row)
    if not finite.all():
        place = int(np.argmin(finite))
        raise EvaluationError(
            f"number {place + 1} of {len(row)} of {what} is {row[place]}; it must be finite. "
            "Look at what made it"
        )


@dataclass(frozen=True, slots=True)
class Best:
    """The best value over all thresholds, and a threshold that reaches it: `score >= threshold` says yes."""

    value: float
    threshold: float


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Compute the mean precision at each recall step; equal scores are one step.

    Labels 1 0 1 by falling score: (1/1 + 2/3) / 2 = 0.833.

    >>> round(average_precision([1, 0, 1], [0.9, 0.5, 0.1]), 3)
    0.833

    Shapes:
        labels: (N,) of 0 and 1, both present
        scores: (N,), higher means more likely 1
    Raises:
        EvaluationError: one class is missing, a label is neither 0 nor 1, or a score is not finite.
    """
    _, hits, called = _steps(labels, scores)
    new_hits = np.diff(hits, prepend=0)
    return float(np.sum(new_hits / hits[-1] * hits / called))


def best_f1(labels: ArrayLike, scores: ArrayLike) -> Best:
    """Find the threshold with the highest F1 of class 1; among equals the highest threshold.

    Raises: as `average_precision`.
    """
    values, hits, called = _steps(labels, scores)
    f1 = 2.0 * hits / (called + hits[-1])
    step = int(np.argmax(f1))
    return Best(float(f1[step]), _threshold(values, step))


def best_accuracy(labels: ArrayLike, scores: ArrayLike) -> Best:
    """Find the threshold with the highest share of right answers; among equals the highest threshold.

    Raises: as `average_precision`.
    """
    values, hits, called = _steps(labels, scores)
    negatives = called[-1] - hits[-1]
    # Step -1 calls nothing positive: right about every negative.
    right = np.concatenate([[negatives], hits + (negatives - (called - hits))])
    step = int(np.argmax(right)) - 1
    return Best(float(right[step + 1] / called[-1]), _threshold(values, step))


def _steps(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return, for each distinct score from the highest: it, the ones, and all that score at least as much."""
    truth, row = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if truth.ndim != 1 or truth.shape != row.shape:
        raise ValueError(f"labels have shape {truth.shape}, scores {row.shape}; both must be (N,)")
    _refuse_not_finite(row, "the scores")
    odd = np.flatnonzero((truth != 0) & (truth != 1))
    if len(odd):
        raise EvaluationError(
            f"label {odd[0] + 1} of {len(truth)} is {truth[odd[0]]:g}; a label must be 0 or 1. Convert the column"
        )
    ones = int(truth.sum())
    if ones in (0, len(truth)):
        raise EvaluationError(
            f"{ones} of {len(truth)} labels are 1; both 0 and 1 are needed to tell them apart. Check the label column"
        )
    order = np.argsort(-row, kind="stable")
    row, truth = row[order], truth[order]
    last_of_step = np.append(np.flatnonzero(np.diff(row)), len(row) - 1)
    return row[last_of_step], np.cumsum(truth)[last_of_step], last_of_step + 1.0


def _threshold(values: Floats, step: int) -> float:
    """Return a threshold between the scores of `step` and of the next lower one."""
    if step < 0:
        return float(np.nextafter(values[0], np.inf))
    if step == len(values) - 1:
        return float(values[-1])
    middle = float(values[step] / 2 + values[step + 1] / 2)
    return middle if middle > values[step + 1] else float(values[step])


@dataclass(frozen=True, slots=True)
class ClusterAgreement:
    """Agreement of clusters with labels; each is 1 when they are the same up to names.

    homogeneity: each cluster holds one label; completeness: each label lies in one cluster; v_measure: their
    harmonic mean; adjusted_rand: pairs that are together in both, 0 on average for random clusters.
    """

    homogeneity: float
    completeness: float
    v_measure: float
    adjusted_rand: float


def cluster_agreement(labels: Sequence[Hashable], clusters: Sequence[Hashable]) -> ClusterAgreement:
    """Compare a clustering with the true labels.

    Pure clusters that cut one label in two: homogeneity 1, completeness 1 - H(cluster | label) / H(cluster)
    = 1 - (ln 2 / 2) / (1.5 ln 2) = 2/3.

    >>> found = cluster_agreement("aabb", [0, 0, 1, 2])
    >>> found.homogeneity, round(found.completeness, 6), round(found.v_measure, 6)
    (1.0, 0.666667, 0.8)

    Raises:
        ValueError: the two are not of one length.
        EvaluationError: there is nothing to compare.
    Source: Rosenberg and Hirschberg 2007, https://aclanthology.org/D07-1043; Hubert and Arabie 1985,
        https://doi.org/10.1007/BF01908075.
    """
    if len(labels) != len(clusters):
        raise ValueError(f"{len(labels)} labels and {len(clusters)} clusters; each text needs one of both")
    if not len(labels):
        raise EvaluationError("there are no labelled texts to compare clusters with; give at least one")
    table = _contingency(labels, clusters)
    rows, columns, total = table.sum(axis=1), table.sum(axis=0), table.sum()
    homogeneity = _share_explained(table)
    completeness = _share_explained(table.T)
    both = homogeneity + completeness
    v_measure = 2 * homogeneity * completeness / both if both else 0.0
    in_both, in_rows, in_columns, pairs = (
        float(np.sum(n * (n - 1) / 2)) for n in (table, rows, columns, total)
    )
    expected = in_rows * in_columns / pairs if pairs else 0.0
    highest = (in_rows + in_columns) / 2
    adjusted = 1.0 if highest == expected else (in_both - expected) / (highest - expected)
    return ClusterAgreement(homogeneity, completeness, v_measure, adjusted)


def _contingency(labels: Sequence[Hashable], clusters: Sequence[Hashable]) -> Floats:
    """Count the texts of each label in each cluster: (labels, clusters)."""
    row_of = {label: row for row, label in enumerate(dict.fromkeys(labels))}
    column_of = {cluster: column for column, cluster in enumerate(dict.fromkeys(clusters))}
    cells = [
        row_of[label] * len(column_of) + column_of[cluster]
        for label, cluster in zip(labels, clusters, strict=True)
    ]
    counts = np.bincount(cells, minlength=len(row_of) * len(column_of))
    return counts.reshape(len(row_of), len(column_of)).astype(np.float64)


def _share_explained(table: Floats) -> float:
    """Compute 1 - H(row | column) / H(row) from counts (rows, columns); 1 where there is but one row."""
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    if len(rows) == 1:
        return 1.0
    total = table.sum()
    entropy = -np.sum(rows / total * np.log(rows / total))
    cells = np.where(table > 0, table, 1.0)  # log 1 = 0 where a cell is empty
    unexplained = -np.sum(table / total * np.where(table > 0, np.log(cells / columns), 0.0))
    return float(np.clip(1.0 - unexplained / entropy, 0.0, 1.0))
