"""Bucketed distances (MPNet): the buckets are the model's own, and every distance in a text counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedkit.model.attention_config import DisentangledConfig
from embedkit.model.disentangled import distance_index
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.positions import relative_position_buckets
from embedkit.native.distances import distance_numbers, distance_table, relative_buckets
from embedkit.native.encoder import NativeEncoder
from embedkit.native.library import NativePrecision
from tests.native.models import (
    FAMILIES,
    PRECISIONS,
    Float32,
    cosines,
    random_model,
    random_tokens,
    reference,
    skip_unless_native,
)

NAMES = ["mpnet", "mpnet, hidden 48, heads of 16"]
# 8, 9: the last distance with a bucket of its own; 128 to 130: around the last bucket; 256: the longest that both take.
LENGTHS = [1, 2, 8, 9, 16, 17, 33, 128, 129, 130, 256]


def with_strong_distances(family: str) -> tuple[TransformerEncoder, dict[str, Float32]]:
    """A model in which distances decide as much as contents do: up to 8 in scores; in all-mpnet-base-v2 it is 11."""
    encoder, weights = random_model(FAMILIES[family])
    assert encoder.relative_bias is not None
    with torch.no_grad():
        encoder.relative_bias.weight.mul_(20)
    return encoder, weights  # arrays share the memory of the parameters


@pytest.mark.parametrize("num_buckets", [8, 32, 64])
def test_buckets_are_those_of_the_model(num_buckets: int) -> None:
    length = 2048
    expected = relative_position_buckets(length, num_buckets=num_buckets, device=torch.device("cpu"))
    position = np.arange(length)
    for query in (0, 777, length - 1):
        found = relative_buckets(position - query, num_buckets)
        np.testing.assert_array_equal(found, expected[query].numpy())


@pytest.mark.parametrize(
    ("buckets", "largest"), [(256, 512), (0, 512), (32, 128), (16, 64), (8, 64), (512, 1024), (2, 4)]
)
def test_numbers_of_disentangled_distances_are_those_of_the_model(buckets: int, largest: int) -> None:
    config = DisentangledConfig(position_buckets=buckets, max_relative_positions=largest)
    length = 1100
    expected = distance_index(length, config, torch.device("cpu"))
    numbers = distance_numbers(length, config)
    for query in (0, 777, length - 1):
        np.testing.assert_array_equal(
            numbers[query - np.arange(length) + length - 1], expected[query].numpy()
        )


def test_a_table_by_hand() -> None:
    """Of 4 buckets, in texts of up to 3 tokens: distance 0 has the first, those before it the second, those behind it the last."""
    weight = np.array([[0, 10], [1, 11], [2, 12], [3, 13]], np.float32)
    np.testing.assert_array_equal(distance_table(weight, 3), [[1, 1, 0, 3, 3], [11, 11, 10, 13, 13]])


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_distance_counts_as_in_torch(family: str, precision: NativePrecision) -> None:
    skip_unless_native(precision)
    encoder, weights = with_strong_distances(family)
    ids, lengths = random_tokens(FAMILIES[family], LENGTHS)
    expected = reference(encoder, ids, lengths)
    native = NativeEncoder(FAMILIES[family], weights, precision=precision, threads=2)
    hidden = native.hidden_states(ids, lengths)
    if precision == "fp32":
        np.testing.assert_allclose(hidden, expected, rtol=0, atol=2e-5)
    else:
        assert cosines(hidden, expected).mean() > 0.999
    starts = np.cumsum(lengths) - lengths
    np.testing.assert_array_equal(native.first_states(ids, lengths), hidden[starts])
    weights["relative_bias.weight"] = np.zeros_like(weights["relative_bias.weight"])
    without = NativeEncoder(FAMILIES[family], weights, precision=precision, threads=1)
    assert cosines(without.hidden_states(ids, lengths)[3:], hidden[3:]).mean() < 0.97


def test_the_longest_text_has_its_distances_too() -> None:
    skip_unless_native("fp32")
    encoder, weights = with_strong_distances("mpnet")
    ids, lengths = random_tokens(FAMILIES["mpnet"], [512, 511])
    hidden = NativeEncoder(FAMILIES["mpnet"], weights, precision="fp32").hidden_states(ids, lengths)
    np.testing.assert_allclose(hidden, reference(encoder, ids, lengths), rtol=0, atol=2e-5)


def test_keys_that_none_attends_to_have_no_distance() -> None:
    skip_unless_native("fp32")
    encoder, weights = with_strong_distances("mpnet")
    ids, lengths = random_tokens(FAMILIES["mpnet"], [12, 40])
    keys = np.array([7, 40])
    native = NativeEncoder(FAMILIES["mpnet"], weights, precision="fp32", threads=1)
    with torch.inference_mode():
        expected = encoder.forward_packed(torch.from_numpy(ids), lengths.tolist(), num_keys=keys.tolist())
    found = native.hidden_states(ids, lengths, num_keys=keys)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_distance_that_is_not_finite_spoils_texts_that_have_it_alone(value: float) -> None:
    skip_unless_native("fp32")
    _, weights = with_strong_distances("mpnet")
    ids, lengths = random_tokens(FAMILIES["mpnet"], [9, 200, 9])
    clean = NativeEncoder(FAMILIES["mpnet"], weights, precision="fp32", threads=1).hidden_states(ids, lengths)
    weights["relative_bias.weight"] = weights["relative_bias.weight"].copy()
    weights["relative_bias.weight"][15, 1] = value  # of keys more than 100 before the query, in the last head
    native = NativeEncoder(FAMILIES["mpnet"], weights, precision="fp32", threads=1)
    hidden = native.hidden_states(ids, lengths)
    assert not np.isfinite(hidden[9:209]).all()
    for part in (slice(0, 9), slice(209, 218)):
        np.testing.assert_array_equal(hidden[part], clean[part])


def test_distances_and_merging_exclude_each_other() -> None:
    skip_unless_native("fp32")
    _, weights = random_model(FAMILIES["mpnet"])
    with pytest.raises(
        ValueError, match=r"merge_tokens is 0.2; merged tokens have no distance.*Leave it out"
    ):
        NativeEncoder(FAMILIES["mpnet"], weights, precision="fp32", merge_tokens=0.2)
