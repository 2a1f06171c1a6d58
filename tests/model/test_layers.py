"""The pieces of a layer beside slow, obvious twins."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.model.feed_forward import FeedForward, activate
from embedkit.model.layers import AttentionBias, Run, SelfAttention, runs_of
from embedkit.model.positions import relative_position_buckets, rotary_table, rotate
from tests.conftest import DEVICES
from tests.tiny import tiny_config

ROUNDING = 1e-6  # sums of a few dozen float32 products in another order


def test_runs_group_neighbours_of_equal_length() -> None:
    assert runs_of([3, 3, 5]) == [Run(0, 2, 3), Run(6, 1, 5)]
    assert runs_of([]) == []


@given(st.lists(st.integers(1, 9)))
def test_runs_cover_every_token_once_in_order(lengths: list[int]) -> None:
    runs = runs_of(lengths)
    assert [run.length for run in runs for _ in range(run.count)] == lengths
    assert [run.start for run in runs[1:]] == [run.stop for run in runs[:-1]]


def bucket_of(distance: int, num_buckets: int, max_distance: int = 128) -> int:
    """Half of the buckets for keys to the right; in each half, half for exact distances, half for ranges."""
    half = num_buckets // 2
    side = half if distance > 0 else 0
    distance, exact = abs(distance), half // 2
    if distance < exact:
        return side + distance
    ratio = math.log(distance / exact) / math.log(max_distance / exact)
    return side + min(half - 1, exact + int(ratio * (half - exact)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_buckets", [8, 32, 64])
def test_relative_buckets_equal_the_slow_twin(num_buckets: int, device: str) -> None:
    length = 300
    buckets = relative_position_buckets(length, num_buckets=num_buckets, device=torch.device(device))
    for i in (0, 1, 150, length - 1):
        assert buckets[i].tolist() == [bucket_of(j - i, num_buckets) for j in range(length)]


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 8)
    table = rotary_table(40, head_size=8, theta=10_000.0, device=torch.device("cpu"))
    queries, keys = rotate(query.expand(40, 8), table), rotate(key.expand(40, 8), table)
    scores = queries @ keys.T
    for distance in (0, 3, -7):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    torch.testing.assert_close(queries[0], query)  # position 0 turns nothing
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(40))


def test_rotation_by_hand() -> None:
    """Head size 2, frequency 1: position 1 turns (1, 0) by one radian."""
    table = rotary_table(2, head_size=2, theta=10_000.0, device=torch.device("cpu"))
    turned = rotate(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), table)
    torch.testing.assert_close(turned, torch.tensor([[1.0, 0.0], [math.cos(1.0), math.sin(1.0)]]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("relu", 0.0), ("gelu", -0.15865525), ("gelu_tanh", -0.15880801), ("silu", -0.26894142)],
)
def test_activations_at_minus_one(name: str, expected: float) -> None:
    value = activate(torch.tensor(-1.0), name)  # type: ignore[arg-type] # one of the four names
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_attention_is_the_softmax_of_scaled_products_over_allowed_keys() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(tiny_config()).eval()
    hidden = torch.randn(2 * 5, 32)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])[:, None, None, :]
    run, bias = Run(0, 2, 5), AttentionBias(mask, None)
    weights = attention.weights(hidden, run, bias)
    assert weights.shape == (2, 4, 5, 5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 5))
    assert weights[1, :, :, 3:].abs().max() == 0
    values = attention.qkv(hidden)[:, 64:].view(2, 5, 4, 8).transpose(1, 2)  # (count, H, T, d)
    expected = attention.out((weights @ values).transpose(1, 2).reshape(10, 32))
    torch.testing.assert_close(attention(hidden, [run], [bias]), expected, rtol=0, atol=ROUNDING)


def test_a_float_bias_is_added_to_the_scores() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(tiny_config()).eval()
    hidden, run = torch.randn(4, 32), Run(0, 1, 4)
    blocked = torch.zeros(1, 1, 4, 4)
    blocked[..., 3] = -math.inf
    as_bool = AttentionBias(blocked == 0, None)
    as_float = AttentionBias(blocked, None)
    for how in (attention.weights, lambda h, r, b: attention(h, [r], [b])):
        torch.testing.assert_close(
            how(hidden, run, as_float), how(hidden, run, as_bool), rtol=0, atol=ROUNDING
        )


def test_the_gate_multiplies_the_activated_half() -> None:
    torch.manual_seed(0)
    config = tiny_config(gated_mlp=True, mlp_bias=False)
    mlp = FeedForward(config)
    x = torch.randn(3, 32)
    first, second = mlp.up.weight.chunk(2)
    expected = (torch.nn.functional.gelu(x @ first.T) * (x @ second.T)) @ mlp.down.weight.T
    torch.testing.assert_close(mlp(x), expected, rtol=0, atol=ROUNDING)
