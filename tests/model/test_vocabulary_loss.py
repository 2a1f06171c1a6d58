"""The loss over a vocabulary: by hand, beside torch's, its gradient, and in groups."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from embedkit.model.vocabulary_loss import vocabulary_loss


def test_label_smoothing_by_hand() -> None:
    """One token, logits (ln 3, 0): probabilities 3/4 and 1/4, the target is the first, ε = 0.2.

    The negative log-likelihood is ln(4/3) = .2877. Smoothed, each of the two has 0.1 and the target 0.8 besides:
    0.9 · ln(4/3) + 0.1 · ln 4 = .3975.
    """
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[math.log(3)], [0.0]])
    loss, nats, right = vocabulary_loss(hidden, weight, None, torch.tensor([0]), smoothing=0.2)
    assert float(nats) == pytest.approx(math.log(4 / 3))
    assert float(loss) == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4))
    assert float(right) == 1


def some(dtype: torch.dtype = torch.double) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, dtype=dtype, generator=generator)
    weight = torch.randn(9, 5, dtype=dtype, generator=generator)
    bias = torch.randn(9, dtype=dtype, generator=generator)
    return hidden, weight, bias, torch.tensor([0, 3, -1, 8, 2, 2, -1])


@pytest.mark.parametrize("group", [1, 20, 10**6])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_torchs_cross_entropy_in_groups_of_any_size(group: int, smoothing: float) -> None:
    hidden, weight, bias, targets = some()
    kept = targets >= 0
    for tensor in (hidden, weight, bias):
        tensor.requires_grad_()
    loss, nats, right = vocabulary_loss(
        hidden, weight, bias, targets, smoothing=smoothing, group_logits=group
    )
    logits = F.linear(hidden, weight, bias)[kept]
    wanted = F.cross_entropy(logits, targets[kept], label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(nats, F.cross_entropy(logits, targets[kept], reduction="sum"))
    assert int(right) == int((logits.argmax(dim=1) == targets[kept]).sum())
    assert (nats.requires_grad, right.requires_grad) == (False, False)
    ours = torch.autograd.grad(loss, (hidden, weight, bias))
    theirs = torch.autograd.grad(wanted, (hidden, weight, bias))
    torch.testing.assert_close(ours, theirs)


def test_its_gradient_is_that_of_finite_differences() -> None:
    hidden, weight, bias, targets = some()
    given = tuple(tensor.requires_grad_() for tensor in (hidden, weight, bias))

    def smoothed(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return vocabulary_loss(hidden, weight, bias, targets, smoothing=0.1)[0]

    assert torch.autograd.gradcheck(smoothed, given)


def test_nothing_to_say_is_a_loss_of_nothing() -> None:
    hidden, weight, bias, _ = some()
    loss, nats, right = vocabulary_loss(hidden, weight, bias, torch.full((7,), -1))
    assert (float(loss), float(nats), float(right)) == (0, 0, 0)
