"""Losses of pairs with a class, a score or a yes and no."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.training.losses import (
    angle,
    contrastive,
    cosent,
    cosine_regression,
    online_contrastive,
    pair_classification,
)

EAST = [1.0, 0.0]
AT_04 = [0.6, 0.8]  # cosine .6 with EAST, so at the cosine distance .4


def at_distance(*distances: float) -> torch.Tensor:
    """Unit vectors at these cosine distances from EAST."""
    return torch.tensor([[1 - d, math.sqrt(1 - (1 - d) ** 2)] for d in distances], dtype=torch.float64)


def easts(count: int) -> torch.Tensor:
    return torch.tensor([EAST] * count, dtype=torch.float64)


def test_pair_classification_is_a_softmax_over_u_v_and_their_difference() -> None:
    """U = 1, v = 3, |u - v| = 2 through the identity; class 1: log(1 + e^-2 + e^-1) = .4076."""
    loss = pair_classification(
        torch.tensor([[1.0]]), torch.tensor([[3.0]]), torch.tensor([1]), weight=torch.eye(3)
    )
    assert loss.item() == pytest.approx(0.407606, abs=1e-6)


def test_pair_classification_adds_a_bias() -> None:
    """The bias (2, 0, 1) makes all three logits 3: log 3."""
    bias = torch.tensor([2.0, 0.0, 1.0])
    first, second = torch.tensor([[1.0]]), torch.tensor([[3.0]])
    loss = pair_classification(first, second, torch.tensor([1]), weight=torch.eye(3), bias=bias)
    assert loss.item() == pytest.approx(math.log(3), abs=1e-6)


def test_cosine_regression_is_the_mean_squared_error_of_the_cosine() -> None:
    """Cosines .6 and 0, scores 1 and .5: (.16 + .25) / 2 = .205; lengths do not matter."""
    second = torch.tensor([AT_04, [0.0, 7.0]])
    loss = cosine_regression(torch.tensor([EAST, [3.0, 0.0]]), second, torch.tensor([1.0, 0.5]))
    assert loss.item() == pytest.approx(0.205, abs=1e-6)


def test_cosent_compares_pairs_whose_scores_differ() -> None:
    """Cosine .6 should be above .8: log(1 + e^(5 * .2)) = log(1 + e) = 1.3133."""
    loss = cosent(easts(2), at_distance(0.4, 0.2), torch.tensor([1.0, 0.0]), scale=5.0)
    assert loss.item() == pytest.approx(1.313262, abs=1e-6)


def test_cosent_of_equal_scores_is_zero_and_its_gradient_finite() -> None:
    first = easts(3).requires_grad_()
    loss = cosent(first, at_distance(0.4, 0.2, 0.9), torch.tensor([2.0, 2.0, 2.0]))
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    assert loss.item() == 0.0
    assert first.grad is not None
    assert torch.equal(first.grad, torch.zeros(3, 2, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(2, 8))
def test_cosent_minds_only_the_order_of_scores(seed: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, rows, 4, dtype=torch.float64, generator=generator)
    scores = torch.randint(0, 4, (rows,), generator=generator).double()
    squashed = torch.tanh(scores) - 7
    assert cosent(first, second, squashed).item() == cosent(first, second, scores).item()


def test_angle_compares_the_quotient_of_complex_vectors() -> None:
    """Z = 1, w = .6 + .8i: Re .6, Im -.8, |sum| = .2; z = w: 1. So log(1 + e^(1 - .2)) = 1.1711."""
    second = torch.tensor([AT_04, EAST])
    loss = angle(torch.tensor([EAST, EAST]), second, torch.tensor([1.0, 0.0]), scale=1.0)
    assert loss.item() == pytest.approx(1.171101, abs=1e-6)


def test_angle_pads_an_odd_width_with_a_zero() -> None:
    first, second = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0])
    padded = angle(torch.nn.functional.pad(first, (0, 1)), torch.nn.functional.pad(second, (0, 1)), scores)
    assert angle(first, second, scores).item() == padded.item()


def test_contrastive_pulls_what_is_alike_and_pushes_the_rest() -> None:
    """Alike at .4: .16; unlike at .2 within .5: .09; unlike at 1: 0. Half the mean: .25 / 6."""
    alike = torch.tensor([True, False, False])
    loss = contrastive(easts(3), at_distance(0.4, 0.2, 1.0), alike)
    assert loss.item() == pytest.approx(0.25 / 6, abs=1e-9)


def test_online_contrastive_counts_hard_pairs_only() -> None:
    """Alike at .4 and .1, unlike at .2 and .9: hard are .4 (beyond .2) and .2 (within .4): .16 + .3² = .25."""
    alike = torch.tensor([True, True, False, False])
    loss = online_contrastive(easts(4), at_distance(0.4, 0.1, 0.2, 0.9), alike)
    assert loss.item() == pytest.approx(0.25, abs=1e-9)


@pytest.mark.parametrize(("alike", "expected"), [(True, 0.4**2), (False, (0.5 - 0.1) ** 2)])
def test_online_contrastive_of_one_kind_splits_at_the_mean(alike: bool, expected: float) -> None:
    """At .4 and .1 the mean is .25: alike, .4 is hard; unlike, .1 is."""
    first = easts(2).requires_grad_()
    loss = online_contrastive(first, at_distance(0.4, 0.1), torch.tensor([alike, alike]))
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    assert first.grad is not None
    assert first.grad.isfinite().all()


def test_errors_name_the_numbers() -> None:
    first, second = torch.zeros(4, 2), torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"cosent: second has shape \(4, 3\); it needs \(4, 2\)"):
        cosent(first, second, torch.zeros(4))
    with pytest.raises(
        ValueError, match=r"cosine_regression: scores has shape \(3,\); it needs \(4,\).* 4 pairs"
    ):
        cosine_regression(first, first, torch.zeros(3))
    with pytest.raises(ValueError, match=r"angle: first has shape \(2,\); it needs \(B, E\)"):
        angle(torch.zeros(2), first, torch.zeros(2))
    with pytest.raises(ValueError, match=r"weight has shape \(3, 5\); it needs \(C, 6\)"):
        pair_classification(first, first, torch.zeros(4, dtype=torch.long), weight=torch.zeros(3, 5))
    with pytest.raises(TypeError, match=r"contrastive: alike is torch\.int64; it needs torch\.bool"):
        contrastive(first, first, torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"online_contrastive: margin is 0\.0"):
        online_contrastive(first, first, torch.zeros(4, dtype=torch.bool), margin=0.0)
    with pytest.raises(ValueError, match=r"cosent: scale is -2\.0"):
        cosent(first, first, torch.zeros(4), scale=-2.0)
