from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from embedkit.errors import EvaluationError
from embedkit.evaluation.agreement import (
    average_precision,
    average_ranks,
    best_accuracy,
    best_f1,
    cluster_agreement,
    pearson,
    spearman,
)


def test_pearson_by_hand() -> None:
    """Deviations -1, 0, 1 and -4/3, -1/3, 5/3: 3 / sqrt(2 * 42/9)."""
    assert pearson([1, 2, 3], [1, 2, 4]) == pytest.approx(3 / math.sqrt(2 * 42 / 9))


def test_spearman_shares_the_mean_rank_among_ties() -> None:
    np.testing.assert_array_equal(average_ranks([5, 2, 5, 9]), [2.5, 1.0, 2.5, 4.0])
    assert spearman([1, 2, 3, 4], [1, 3, 3, 9]) == pytest.approx(4.5 / math.sqrt(5 * 4.5))


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=20))
def test_spearman_sees_order_alone(x: list[int]) -> None:
    assume(len(set(x)) > 1)
    assert spearman(x, [value**3 for value in x]) == pytest.approx(1.0)
    assert spearman(x, [-value for value in x]) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1.0], [2.0], r"a correlation needs at least 2 pairs; there are 1"),
        ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0], r"all 3 numbers of the second row are 4; a correlation needs"),
        ([1.0, math.nan], [1.0, 2.0], r"number 2 of 2 of the first row is nan; it must be finite"),
        ([1.0, 2.0], [math.inf, 2.0], r"number 1 of 2 of the second row is inf"),
    ],
)
def test_a_correlation_that_is_not_defined_is_an_error(x: list[float], y: list[float], message: str) -> None:
    for correlation in (pearson, spearman):
        with pytest.raises(EvaluationError, match=message):
            correlation(x, y)


def test_rows_of_two_lengths_are_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(2,\), y \(3,\)"):
        pearson([1, 2], [1, 2, 3])


def test_average_precision_by_hand() -> None:
    """By falling score 1 0 1: (1/1 + 2/3) / 2. All tied: one step, precision 2/3."""
    assert average_precision([1, 0, 1], [0.9, 0.5, 0.1]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([1, 0, 1], [0.5, 0.5, 0.5]) == pytest.approx(2 / 3)


def test_best_thresholds_by_hand() -> None:
    """By falling score 1 1 0 1 0. F1 at 4 called: 2*3 / (4 + 3) = 6/7; right answers there 4 of 5, at 2 called too."""
    labels, scores = [1, 1, 0, 1, 0], [0.9, 0.8, 0.6, 0.4, 0.2]
    f1, accuracy = best_f1(labels, scores), best_accuracy(labels, scores)
    assert [f1.value, f1.threshold] == pytest.approx([6 / 7, 0.3])
    assert [accuracy.value, accuracy.threshold] == pytest.approx([4 / 5, 0.7])


LABELLED = st.lists(
    st.tuples(st.integers(0, 1), st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(-1, 1))), min_size=2
)


@given(LABELLED)
def test_thresholds_reach_their_values_and_no_other_does_better(pairs: list[tuple[int, float]]) -> None:
    labels, scores = np.array([label for label, _ in pairs]), np.array([score for _, score in pairs])
    assume(0 < labels.sum() < len(labels))

    def f1_at(threshold: float) -> float:
        called = scores >= threshold
        return float(2 * (called & (labels == 1)).sum() / (called.sum() + labels.sum()))

    def accuracy_at(threshold: float) -> float:
        return float(np.mean((scores >= threshold) == labels))

    thresholds = [*scores.tolist(), 2.0]
    for best, at in ((best_f1(labels, scores), f1_at), (best_accuracy(labels, scores), accuracy_at)):
        assert best.value == pytest.approx(at(best.threshold))
        assert best.value == pytest.approx(max(at(each) for each in thresholds))


def test_a_threshold_parts_neighbouring_floats() -> None:
    """Between 1 and the next float there is no other, so their middle rounds to one of them: to 1, which is even."""
    scores = [math.nextafter(1.0, 2.0), 1.0]
    assert best_accuracy([1, 0], scores).threshold == scores[0]
    assert best_f1([1, 0], scores).threshold == scores[0]


def test_calling_nothing_positive_can_be_the_most_accurate() -> None:
    best = best_accuracy([0, 0, 1], [0.9, 0.8, 0.1])
    assert best.value == pytest.approx(2 / 3)
    assert best.threshold > 0.9


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.1, 0.2], r"2 of 2 labels are 1; both 0 and 1 are needed"),
        ([0, 0, 0], [0.1, 0.2, 0.3], r"0 of 3 labels are 1"),
        ([0, 2], [0.1, 0.2], r"label 2 of 2 is 2; a label must be 0 or 1"),
        ([0, 1], [0.1, math.nan], r"number 2 of 2 of the scores is nan"),
    ],
)
def test_pairs_that_cannot_be_classified_are_an_error(
    labels: list[int], scores: list[float], message: str
) -> None:
    for measure in (average_precision, best_f1, best_accuracy):
        with pytest.raises(EvaluationError, match=message):
            measure(labels, scores)


def test_labels_and_scores_of_two_lengths_are_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"labels have shape \(2,\), scores \(1,\)"):
        average_precision([0, 1], [0.5])


def test_cluster_agreement_by_hand() -> None:
    """Labels aabb in clusters 0 0 1 2: pure; H(cluster | label) = ln 2 / 2 of H(cluster) = 1.5 ln 2.

    Of 6 pairs, 2 are together by label, 1 by cluster, 1 by both: (1 - 2/6) / (1.5 - 2/6) = 4/7.
    """
    found = cluster_agreement("aabb", [0, 0, 1, 2])
    assert [found.homogeneity, found.completeness] == pytest.approx([1.0, 2 / 3])
    assert [found.v_measure, found.adjusted_rand] == pytest.approx([0.8, 4 / 7])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_the_names_of_clusters_do_not_matter(labels: list[int]) -> None:
    found = cluster_agreement(labels, [f"cluster {9 - label}" for label in labels])
    assert [found.v_measure, found.adjusted_rand] == pytest.approx([1.0, 1.0])


def test_clusterings_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 labels and 1 clusters"):
        cluster_agreement("ab", [0])
    with pytest.raises(EvaluationError, match=r"there are no labelled texts"):
        cluster_agreement([], [])
