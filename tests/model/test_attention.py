"""Attention with its gradient by hand beside torch's, sequence by sequence."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from embedkit.model.attention import GROUP_SCORES, attend_packed, groups_of
from embedkit.model.layers import AttentionBias, SelfAttention, runs_of
from embedkit.model.positions import rotary_table
from tests.finite_differences import assert_gradients
from tests.tiny import tiny_config

HEADS, SIZE = 4, 8
ROUNDING = 1e-12  # of float64
Counts = list[tuple[int, int]]


def projections(counts: Counts, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(0)
    tokens = sum(count * length for count, length in counts)
    return torch.randn(tokens, 3 * HEADS * SIZE, dtype=dtype, requires_grad=True)


def one_by_one(projected: Tensor, counts: Counts) -> Tensor:
    """The slow twin: torch's attention of each sequence alone."""
    contexts, start = [], 0
    for length in [length for count, length in counts for _ in range(count)]:
        parts = projected[start : start + length].view(length, 3, HEADS, SIZE).permute(1, 2, 0, 3)
        contexts.append(F.scaled_dot_product_attention(*parts).transpose(0, 1).reshape(length, -1))
        start += length
    return torch.cat(contexts)


@pytest.mark.parametrize("counts", [[(1, 5)], [(2, 7), (1, 3), (3, 1)], [(20, 64), (2, 9)]])
def test_values_and_gradients_equal_torchs_attention_of_each_sequence(counts: Counts) -> None:
    projected = projections(counts)
    ours = attend_packed(projected, counts, num_heads=HEADS, dropout=0.0)
    theirs = one_by_one(projected, counts)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=ROUNDING)
    weights = torch.randn_like(ours)
    of_ours, of_theirs = (
        torch.autograd.grad((each * weights).sum(), projected)[0] for each in (ours, theirs)
    )
    torch.testing.assert_close(of_ours, of_theirs, rtol=0, atol=ROUNDING)


def test_gradients_with_dropout_are_those_of_the_same_dropout() -> None:
    counts = [(2, 3), (1, 2)]

    def attend(projected: Tensor) -> Tensor:
        torch.manual_seed(1)
        return attend_packed(projected, counts, num_heads=HEADS, dropout=0.4)

    assert_gradients(attend, [projections(counts)])


def test_dropout_takes_weights_and_keeps_their_expected_sum() -> None:
    """Values of 1 are mixed to the sum of the kept weights: 1 on the average of many tokens."""
    counts = [(200, 16)]
    projected = projections(counts).detach()
    projected[:, 2 * HEADS * SIZE :] = 1.0
    sums = attend_packed(projected, counts, num_heads=HEADS, dropout=0.3)
    assert not torch.allclose(sums, torch.ones_like(sums), atol=0.1)
    assert abs(float(sums.mean()) - 1) < 0.01


def test_bfloat16_is_near_float64() -> None:
    counts = [(3, 9), (1, 4)]
    projected = projections(counts)
    rough = projected.detach().bfloat16().requires_grad_()
    out = attend_packed(rough, counts, num_heads=HEADS, dropout=0.0)
    expected = one_by_one(projected, counts)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=0.02)
    torch.autograd.backward(out.sum())
    torch.autograd.backward(expected.sum())
    assert rough.grad is not None
    assert projected.grad is not None
    torch.testing.assert_close(rough.grad.double(), projected.grad, rtol=0, atol=0.05)


def test_groups_cover_all_rows_in_order_and_hold_few_scores() -> None:
    counts = [(50, 64), (1, 2000), (7, 3)]
    groups = list(groups_of(counts, HEADS))
    assert [row for rows, _, _ in groups for row in range(rows.start, rows.stop)] == list(
        range(50 * 64 + 2000 + 21)
    )
    assert all(count == 1 or count * HEADS * length**2 <= GROUP_SCORES for _, count, length in groups)
    assert len(groups) == 4 + 1 + 1  # 16 sequences of 64 tokens fit


def test_rotated_attention_with_a_gradient_equals_that_without() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(tiny_config()).eval()
    runs = runs_of([5, 5, 3])
    tables = [rotary_table(r.length, head_size=8, theta=10_000.0, device=torch.device("cpu")) for r in runs]
    biases = [AttentionBias(None, table) for table in tables]
    hidden = torch.randn(13, 32)
    with torch.no_grad():
        expected = attention(hidden, runs, biases)
    torch.testing.assert_close(attention(hidden, runs, biases), expected, rtol=0, atol=1e-6)
