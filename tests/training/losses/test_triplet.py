"""Triplets given, and triplets found in a labelled batch."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from embedkit.training.losses import batch_all_triplet, batch_hard_triplet, batch_semi_hard_triplet, triplet

BatchLoss = Callable[[Tensor, Tensor], Tensor]

# On a line: 0 and 4 carry one label, 1 and 9 the other. Distances: 0-4 4, 1-9 8; 0-1 1, 0-9 9, 4-1 3, 4-9 5.
POINTS = torch.tensor([[0.0], [4.0], [1.0], [9.0]], dtype=torch.float64)
LABELS = torch.tensor([7, 7, 3, 3])


def column(*numbers: float) -> Tensor:
    return torch.tensor([[n] for n in numbers])


def test_triplet_is_a_hinge_on_the_difference_of_distances() -> None:
    """1 - 3 + 5 = 3 and 1 - 9 + 5 < 0: mean 1.5."""
    loss = triplet(column(0, 0), column(1, 1), column(3, 9), margin=5.0)
    assert loss.item() == pytest.approx(1.5)


def test_soft_triplet_has_no_flat_part() -> None:
    """log(1 + e^-2) = .1269 and log(1 + e^-8) = .000335: mean .0636."""
    loss = triplet(column(0, 0), column(1, 1), column(3, 9), margin="soft")
    assert loss.item() == pytest.approx(0.063632, abs=1e-6)


def test_triplet_by_cosine_distance() -> None:
    """Distances 1 - .6 = .4 and 1 - .8 = .2: .4 - .2 + .1 = .3."""
    anchor, near, far = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.6, 0.8]]), torch.tensor([[0.8, 0.6]])
    assert triplet(anchor, near, far, margin=0.1, distance="cosine").item() == pytest.approx(0.3, abs=1e-6)


def test_batch_all_is_the_mean_of_the_triplets_above_zero() -> None:
    """Margin 2. Anchor 0: 5; 4: 3, 1; 1: 9, 7; 9: 1, 5. Sum 31 over 7."""
    assert batch_all_triplet(POINTS, LABELS, margin=2.0).item() == pytest.approx(31 / 7)


def test_batch_hard_takes_the_farthest_positive_and_nearest_negative() -> None:
    """Margin 2: 4 - 1, 4 - 3, 8 - 1, 8 - 5, each + 2: 5 + 3 + 9 + 5 = 22 over 4."""
    assert batch_hard_triplet(POINTS, LABELS, margin=2.0).item() == pytest.approx(5.5)


def test_batch_hard_with_a_soft_margin() -> None:
    """Softplus of 3, 1, 7, 3: 3.0486 + 1.3133 + 7.0009 + 3.0486 = 14.4113 over 4."""
    loss = batch_hard_triplet(POINTS, LABELS, margin="soft")
    expected = sum(math.log1p(math.exp(x)) for x in (3, 1, 7, 3)) / 4
    assert loss.item() == pytest.approx(expected)
    assert loss.item() == pytest.approx(3.602837, abs=1e-6)


def test_batch_semi_hard_takes_the_nearest_negative_beyond_the_positive() -> None:
    """Margin 2. 0: 4 - 9 < 0; 4: 4 - 5 + 2 = 1; 1: none beyond 8, farthest is 3: 7; 9: 8 - 9 + 2 = 1. 9 over 4."""
    assert batch_semi_hard_triplet(POINTS, LABELS, margin=2.0).item() == pytest.approx(2.25)


def test_a_negative_as_far_as_the_positive_is_not_semi_hard() -> None:
    """Of 0 and 2 (alike), -2 and 3: anchor 0 skips -2, as far as 2, for 3: 2 - 3 + 2 = 1; 2 takes -2: 2 - 4 + 2 = 0."""
    points = torch.tensor([[0.0], [2.0], [-2.0], [3.0]])
    loss = batch_semi_hard_triplet(points, torch.tensor([0, 0, 1, 2]), margin=2.0)
    assert loss.item() == pytest.approx(0.5)


def test_batch_hard_leaves_out_anchors_without_a_positive() -> None:
    """Of 0, 4 (alike) and 1: anchors 0 and 4 only: (4 - 1 + 2 + 4 - 3 + 2) / 2 = 4."""
    assert batch_hard_triplet(POINTS[:3], LABELS[:3], margin=2.0).item() == pytest.approx(4.0)


@pytest.mark.parametrize("loss", [batch_all_triplet, batch_hard_triplet, batch_semi_hard_triplet])
def test_equal_embeddings_have_a_finite_gradient(loss: BatchLoss) -> None:
    points = torch.zeros(4, 3, requires_grad=True)
    value = loss(points, LABELS)
    assert value.item() == pytest.approx(5.0)
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    assert points.grad is not None
    assert points.grad.isfinite().all()


@pytest.mark.parametrize("loss", [batch_all_triplet, batch_hard_triplet, batch_semi_hard_triplet])
@pytest.mark.parametrize(("labels", "distinct"), [([1, 1, 1, 1], 1), ([1, 2, 3, 4], 4)])
def test_a_batch_without_a_triplet_is_an_error(loss: BatchLoss, labels: list[int], distinct: int) -> None:
    with pytest.raises(ValueError, match=f"4 texts with {distinct} distinct labels make no triplet"):
        loss(POINTS, torch.tensor(labels))


def test_errors_name_the_numbers() -> None:
    with pytest.raises(
        ValueError, match=r"batch_hard_triplet: labels has shape \(3,\); it needs \(4,\).* 4 emb"
    ):
        batch_hard_triplet(POINTS, LABELS[:3])
    with pytest.raises(ValueError, match=r"triplet: negatives has shape \(1, 1\); it needs \(2, 1\)"):
        triplet(column(0, 0), column(1, 1), column(3))
