"""The auxiliary losses of routers by hand, and as shares of a batch that is cut into parts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from embedkit.training.losses import clear_selection, load_balance, router_z


def test_the_load_balancing_loss_by_hand() -> None:
    """2 · (.75 · .6 + .25 · .4) = 1.1; all alike gives 1, all on one expert of certain choice E."""
    logits = torch.tensor([[0.6, 0.4]]).log().expand(4, 2)
    assert load_balance(logits, torch.tensor([3.0, 1.0]), count=4).item() == pytest.approx(1.1)
    assert load_balance(torch.zeros(4, 2), torch.tensor([2.0, 2.0]), count=4).item() == pytest.approx(1.0)
    sure = torch.tensor([[50.0, 0.0, 0.0]]).expand(4, 3)
    assert load_balance(sure, torch.tensor([4.0, 0.0, 0.0]), count=4).item() == pytest.approx(3.0)


def test_with_two_choices_a_token_it_is_1_all_the_same() -> None:
    assert load_balance(torch.zeros(4, 2), torch.tensor([4.0, 4.0]), count=4).item() == pytest.approx(1.0)


def test_the_z_loss_by_hand() -> None:
    """(ln 2)² of two scores of 0, (5 + ln 2)² of two of 5; the mean of both tokens."""
    logits = torch.tensor([[0.0, 0.0], [5.0, 5.0]])
    wanted = (math.log(2) ** 2 + (5 + math.log(2)) ** 2) / 2
    assert router_z(logits, count=2).item() == pytest.approx(wanted, rel=1e-6)


def test_the_selection_loss_by_hand() -> None:
    """Scores of ln 3, gates of 3/4: taken costs -ln 3/4, left costs -ln 1/4; the mean of both."""
    logits = torch.tensor([math.log(3), math.log(3)])
    found = clear_selection(logits, torch.tensor([True, False]), count=2)
    assert found.item() == pytest.approx((-math.log(0.75) - math.log(0.25)) / 2, rel=1e-6)


def test_the_shares_of_parts_add_up_to_the_whole() -> None:
    logits = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    load = torch.bincount(logits.argmax(dim=1), minlength=4).double()
    shares: list[Callable[[Tensor], Tensor]] = [
        lambda part: load_balance(part, load, count=10),
        lambda part: router_z(part, count=10),
        lambda part: clear_selection(part[:, 0], part[:, 1] > 0, count=10),
    ]
    for share in shares:
        parts = [share(logits[rows]).item() for rows in (slice(3), slice(3, 3), slice(3, None))]
        assert sum(parts) == pytest.approx(share(logits).item(), rel=1e-6)


def test_the_load_balancing_loss_pushes_probability_from_what_is_used_most() -> None:
    logits = torch.zeros(4, 2, requires_grad=True)
    torch.autograd.backward(load_balance(logits, torch.tensor([3.0, 1.0]), count=4))
    assert logits.grad is not None
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 1] < 0).all()
