"""Pooling: worked by hand, then equal with and without padding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.model.config import PoolingMode
from embedkit.model.pooling import pool

MODES: tuple[PoolingMode, ...] = ("mean", "cls", "max", "last", "weighted_mean", "mean_sqrt_len")

# Two tokens (1, -2) and (3, -4), then one of padding.
TOKENS = torch.tensor([[[1.0, -2.0], [3.0, -4.0], [100.0, 100.0]]])
MASK = torch.tensor([[True, True, False]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mean", [2.0, -3.0]),
        ("cls", [1.0, -2.0]),
        ("max", [3.0, -2.0]),
        ("last", [3.0, -4.0]),
        ("weighted_mean", [(1 + 2 * 3) / 3, (-2 - 2 * 4) / 3]),
        ("mean_sqrt_len", [4 / math.sqrt(2), -6 / math.sqrt(2)]),
    ],
)
def test_each_mode_by_hand(mode: PoolingMode, expected: list[float]) -> None:
    torch.testing.assert_close(pool(TOKENS, MASK, mode), torch.tensor([expected]))
    torch.testing.assert_close(pool(TOKENS[:, :2], None, mode), torch.tensor([expected]))


def test_padding_on_the_left_moves_the_first_token() -> None:
    mask = torch.tensor([[False, True, True]])
    assert pool(TOKENS, mask, "cls").tolist() == [[3.0, -4.0]]
    assert pool(TOKENS, mask, "last").tolist() == [[100.0, 100.0]]


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    extra=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_padding_changes_nothing(lengths: list[int], extra: int, seed: int) -> None:
    width = max(lengths) + extra
    tokens = torch.randn(len(lengths), width, 4, generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    for mode in MODES:
        alone = torch.cat([pool(row[None, :n], None, mode) for row, n in zip(tokens, lengths, strict=True)])
        torch.testing.assert_close(pool(tokens, mask, mode), alone)


def test_half_precision_is_summed_in_fp32() -> None:
    """4,096 ones and a bf16 sum would stop at 256, where one more is less than half a step."""
    tokens = torch.ones(1, 4096, 1, dtype=torch.bfloat16)
    for mode, expected in (("mean", 1.0), ("mean_sqrt_len", 64.0), ("weighted_mean", 1.0)):
        pooled = pool(tokens, None, mode)  # type: ignore[arg-type] # one of the modes
        assert pooled.dtype == torch.bfloat16
        assert pooled.item() == expected


def test_autocast_does_not_round_what_is_summed() -> None:
    """1 + 2^-12 has no place in bf16, which training computes products in."""
    tokens = torch.full((1, 4, 1), 1 + 2**-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pool(tokens, None, "mean").tolist() == [[1 + 2**-12]]


def test_no_token_to_pool_gives_zeros_and_no_nan() -> None:
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    for mode in ("mean", "weighted_mean", "mean_sqrt_len"):
        assert pool(TOKENS, nothing, mode).tolist() == [[0.0, 0.0]]


def test_gradients_reach_every_real_token_of_a_mean_and_no_padding() -> None:
    tokens = TOKENS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pool(tokens, MASK, "mean").sum(), tokens)
    assert gradient[0].tolist() == [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]]
