"""Dropout: how much is dropped, what is left, and that a seed decides."""

from __future__ import annotations

import math

import pytest
import torch

from embedkit.model.dropout import LEVELS, draw_bits, dropout, kept_scale


def seeded(x: torch.Tensor, probability: float, residual: torch.Tensor | None = None) -> torch.Tensor:
    torch.manual_seed(7)
    return dropout(x, probability, residual=residual)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_numbers_are_dropped_as_often_as_asked_for_wherever_they_stand_in_a_draw(probability: float) -> None:
    number = 100_000
    dropped = (seeded(torch.ones(number, 4), probability) == 0).float().mean(dim=0)  # by place in 64 bits
    deviation = math.sqrt(probability * (1 - probability) / number)
    torch.testing.assert_close(dropped, torch.full((4,), probability), rtol=0, atol=5 * deviation)


def test_what_is_kept_is_divided_by_its_share() -> None:
    """Of 65,536 levels, 0.1 is 6,554: what is kept becomes 65536 / 58982 = 1.111119 times as large."""
    assert kept_scale(0.1) == LEVELS / 58982
    x = torch.randn(1000)
    out = seeded(x, 0.1)
    torch.testing.assert_close(out[out != 0], x[out != 0] * 1.111119)


def test_a_seed_decides_and_another_one_decides_otherwise() -> None:
    x = torch.ones(257)  # no multiple of four
    assert torch.equal(seeded(x, 0.3), seeded(x, 0.3))
    torch.manual_seed(8)
    assert not torch.equal(seeded(x, 0.3), dropout(x, 0.3))


def test_neighbouring_numbers_are_dropped_independently() -> None:
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(400_000), 0.5) == 0).float() - 0.5
    for distance in (1, 2, 3, 4):
        together = (dropped[:-distance] * dropped[distance:]).mean() * 4
        assert abs(float(together)) < 5 / math.sqrt(400_000), distance


def test_the_residual_is_added_undropped() -> None:
    x, residual = torch.randn(2, 50)
    torch.testing.assert_close(seeded(x, 0.4, residual), residual + seeded(x, 0.4))
    assert torch.equal(seeded(x, 0.0, residual), residual + x)
    assert seeded(x, 0.0) is x


def test_gradients_pass_where_numbers_did() -> None:
    x, residual = torch.randn(2, 3, 7, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(lambda x, r: seeded(x, 0.4, r), (x, residual))
    assert torch.autograd.gradcheck(lambda x: seeded(x, 0.4), (x,))


def test_a_bfloat16_branch_joins_a_float32_residual() -> None:
    x, residual = torch.randn(40).bfloat16().requires_grad_(), torch.randn(40)
    out = seeded(x, 0.4, residual)
    assert out.dtype == torch.float32
    torch.autograd.backward(out.sum())
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(x.grad != 0, out != residual)


def test_all_bits_are_drawn() -> None:
    torch.manual_seed(0)
    bits = draw_bits((4096, 4))
    assert (bits.amin(dim=0) < -(2**14)).all()
    assert (bits.amax(dim=0) > 2**14).all()
