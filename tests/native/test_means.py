"""Means of sequences: those of their tokens' vectors, whatever stands beside them, and whoever computes them."""

from __future__ import annotations

import numpy as np
import pytest

from embedkit.checkpoint.quantized import Scales
from embedkit.inference.numpy_runtime.sentence_head import mean_of
from embedkit.native.encoder import NativeEncoder
from embedkit.native.library import NativePrecision, why_not_loadable
from embedkit.native.means import RowMeans
from tests.native.models import BERT, FAMILIES, PRECISIONS, random_model, random_tokens, skip_unless_native

LENGTHS = (15, 1, 200, 2, 64, 33, 97, 3, 130)
TOLERANCE = 2e-6  # by the order of sums; values are of order 1


@pytest.mark.parametrize("family", ["bert", "hidden 48, heads of 16", "modernbert", "albert"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("skip", [0, 1, 2, 40])
def test_means_are_those_of_the_tokens(family: str, precision: NativePrecision, skip: int) -> None:
    skip_unless_native(precision)
    config = FAMILIES[family]
    ids, lengths = random_tokens(config, LENGTHS)
    one, three = (
        NativeEncoder(config, random_model(config)[1], precision=precision, threads=threads)
        for threads in (1, 3)
    )
    for layers in (None, 1):
        hidden = one.hidden_states(ids, lengths, layers=layers)
        means = one.mean_states(ids, lengths, layers=layers, skip=skip)
        np.testing.assert_allclose(means, mean_of(hidden, lengths, skip=skip), rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(means.any(axis=1), lengths > skip)
        np.testing.assert_array_equal(three.mean_states(ids, lengths, layers=layers, skip=skip), means)
    starts, means = np.cumsum(lengths) - lengths, one.mean_states(ids, lengths, skip=skip)
    for number in (2, 7):  # a sequence alone
        part = slice(starts[number], starts[number] + lengths[number])
        alone = one.mean_states(ids[part], lengths[[number]], skip=skip)
        np.testing.assert_array_equal(alone, means[[number]])


@pytest.mark.parametrize("skip", [0, 5])
def test_merged_tokens_count_as_often_as_they_are(skip: int) -> None:
    skip_unless_native("fp32")
    ids, lengths = random_tokens(BERT, LENGTHS)
    native = NativeEncoder(BERT, random_model(BERT)[1], precision="fp32", threads=2, merge_tokens=0.3)
    hidden = native.hidden_states(ids, lengths)
    found = native.mean_states(ids, lengths, skip=skip)
    np.testing.assert_allclose(found, mean_of(hidden, lengths, skip=skip), rtol=0, atol=TOLERANCE)


def test_a_mean_by_hand() -> None:
    """Of 1, 2, 6, of nothing and of 4: 3, 0 and 4; behind the first token 4, 0 and 0."""
    hidden, lengths = np.array([[1], [2], [6], [4]], np.float32), np.array([3, 0, 1])
    np.testing.assert_allclose(mean_of(hidden, lengths), [[3], [0], [4]])
    np.testing.assert_allclose(mean_of(hidden, lengths, skip=1), [[4], [0], [0]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_comes_out_and_stays_alone(value: float) -> None:
    skip_unless_native("fp32")
    weights = random_model(BERT)[1]
    weights["embeddings.tokens.weight"] = weights["embeddings.tokens.weight"].copy()
    weights["embeddings.tokens.weight"][5, 3] = value
    native = NativeEncoder(BERT, weights, precision="fp32", threads=1)
    ids, lengths = random_tokens(BERT, [20, 30, 20])
    ids[ids == 5] = 6
    clean = native.mean_states(ids, lengths)
    ids[25] = 5
    means = native.mean_states(ids, lengths)
    assert not np.isfinite(means[1]).any()
    np.testing.assert_array_equal(means[[0, 2]], clean[[0, 2]])


def test_what_does_not_fit_is_refused() -> None:
    skip_unless_native("fp32")
    native = NativeEncoder(BERT, random_model(BERT)[1], precision="fp32", threads=1)
    with pytest.raises(ValueError, match=r"skip is -1; it must be at least 0"):
        native.mean_states(np.array([1]), np.array([1]), skip=-1)
    nothing = np.empty(0, np.int64)
    assert native.mean_states(nothing, nothing).shape == (0, BERT.hidden_size)


@pytest.mark.skipif(why_not_loadable() is not None, reason="the kernels are not compiled here")
@pytest.mark.parametrize("dimension", [1, 5, 64, 257])
@pytest.mark.parametrize("stored", ["float32", "int8"])
@pytest.mark.parametrize("skip", [0, 1, 3])
def test_means_of_a_tables_rows_are_numpys(dimension: int, stored: str, skip: int) -> None:
    random = np.random.default_rng(dimension)
    lengths = np.array([3, 0, 1, 40, 2, 0, 7])
    numbers = random.integers(0, 30, lengths.sum())
    if stored == "int8":
        codes = random.integers(-127, 128, (30, dimension)).astype(np.int8)
        scales = Scales(*(random.uniform(0.5, 2, size).astype(np.float32) for size in (30, dimension)))
        means, table = RowMeans(codes, (scales.row, scales.column)), scales.apply(codes)
    else:
        table = random.standard_normal((30, dimension)).astype(np.float32)
        means = RowMeans(table)
    found = means(numbers, lengths, skip=skip)
    np.testing.assert_allclose(found, mean_of(table[numbers], lengths, skip=skip), rtol=1e-5, atol=2e-5)
    assert not found[lengths <= skip].any()
    alone = means(numbers[4:44], lengths[3:4], skip=skip)
    np.testing.assert_array_equal(found[3:4], alone)  # the same bits alone and in company
    with pytest.raises(IndexError, match="rows are numbered from 0 to 29"):
        means(np.array([0, 30]), np.array([2]))
    with pytest.raises(ValueError, match="3 rows, and lengths of 2"):
        means(np.array([0, 1, 2]), np.array([2]))
    assert means(np.empty(0, np.int64), np.zeros(2, np.int64)).shape == (2, dimension)


def test_rows_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="rows are float64"):
        RowMeans(np.zeros((2, 2)))
