"""Merging tokens and leaving out what no first token needs: the kernels beside numpy and torch."""

from __future__ import annotations

import numpy as np
import pytest

from embedkit.checkpoint.arrays import Weights
from embedkit.checkpoint.stored_arrays import StoredArray
from embedkit.inference.numpy_runtime.encoder import NumpyEncoder
from embedkit.inference.numpy_runtime.encoder import why_not as why_not_numpy
from embedkit.model.config import EncoderConfig
from embedkit.native.encoder import NativeEncoder
from embedkit.native.library import NativePrecision
from embedkit.native.merging import FEWEST_TOKENS, why_not_merging
from tests.native.models import (
    BERT,
    FAMILIES,
    PRECISIONS,
    Float32,
    cosines,
    random_model,
    random_tokens,
    reference,
    skip_unless_native,
)

LENGTHS = (15, 1, 200, 2, 64, 33, 97, 64, 32, 150)
# fp32 differs by the order of sums (values are of order 1), but for a choice between two nearly equal pairs.
FP32_TOLERANCE = 2e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layers", [None, 1])
def test_first_states_are_those_of_all_tokens(
    family: str, precision: NativePrecision, layers: int | None
) -> None:
    skip_unless_native(precision)
    config = FAMILIES[family]
    encoder, weights = random_model(config)
    ids, lengths = random_tokens(config, LENGTHS)
    native = NativeEncoder(config, weights, precision=precision, threads=2)
    starts = np.cumsum(lengths) - lengths
    first = native.first_states(ids, lengths, layers=layers)
    np.testing.assert_array_equal(first, native.hidden_states(ids, lengths, layers=layers)[starts])
    if precision == "fp32" and layers is None:
        np.testing.assert_allclose(first, reference(encoder, ids, lengths)[starts], rtol=0, atol=2e-5)


def test_first_states_of_nothing_are_no_rows() -> None:
    skip_unless_native("fp32")
    nothing = np.empty(0, np.int64)
    native = NativeEncoder(BERT, random_model(BERT)[1], precision="fp32", threads=1)
    assert native.first_states(nothing, nothing).shape == (0, BERT.hidden_size)


def numpy_encoder(config: EncoderConfig, weights: dict[str, Float32], share: float) -> NumpyEncoder:
    stored = Weights({name: [StoredArray(weight, "float32")] for name, weight in weights.items()})
    return NumpyEncoder(config, stored, merge_tokens=share)


@pytest.mark.parametrize(
    "family",
    [
        name
        for name, config in FAMILIES.items()
        if why_not_merging(config) is None and why_not_numpy(config) is None
    ],
)
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_kernels_merge_as_numpy_does(family: str, share: float) -> None:
    skip_unless_native("fp32")
    config = FAMILIES[family]
    _, weights = random_model(config)
    ids, lengths = random_tokens(config, LENGTHS)
    expected = numpy_encoder(config, weights, share).hidden_states(ids, lengths)
    native = NativeEncoder(config, weights, precision="fp32", threads=1, merge_tokens=share)
    found = native.hidden_states(ids, lengths)
    np.testing.assert_allclose(found, expected, rtol=0, atol=FP32_TOLERANCE)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_neither_threads_nor_company_change_a_bit_of_what_is_merged(precision: NativePrecision) -> None:
    skip_unless_native(precision)
    config = FAMILIES["hidden 48, heads of 16"]  # rows are filled up: 48 to 64
    _, weights = random_model(config)
    ids, lengths = random_tokens(config, LENGTHS)
    one, three = (
        NativeEncoder(config, weights, precision=precision, threads=threads, merge_tokens=0.2)
        for threads in (1, 3)
    )
    hidden = one.hidden_states(ids, lengths)
    np.testing.assert_array_equal(three.hidden_states(ids, lengths), hidden)
    starts = np.cumsum(lengths) - lengths
    np.testing.assert_array_equal(one.first_states(ids, lengths), hidden[starts])
    for number in (2, 6):  # a sequence alone
        part = slice(starts[number], starts[number] + lengths[number])
        np.testing.assert_array_equal(one.hidden_states(ids[part], lengths[[number]]), hidden[part])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_short_sequences_are_not_touched_and_long_ones_come_close(precision: NativePrecision) -> None:
    skip_unless_native(precision)
    config = FAMILIES["hidden 384, heads of 32"]
    _, weights = random_model(config)
    ids, lengths = random_tokens(config, LENGTHS)
    plain, merging = (
        NativeEncoder(config, weights, precision=precision, threads=1, merge_tokens=share).hidden_states(
            ids, lengths
        )
        for share in (0.0, 0.1)
    )
    short = np.repeat(lengths <= FEWEST_TOKENS, lengths)
    np.testing.assert_array_equal(merging[short], plain[short])
    starts = np.cumsum(lengths) - lengths
    sums, exact = (np.add.reduceat(states, starts)[lengths > 64] for states in (merging, plain))
    found = cosines(sums, exact)
    assert found.min() > 0.95, found.min()
    assert found.max() < 1 - 1e-6  # of random tokens, none of which say the same


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_token_that_is_not_finite_spoils_its_sequence_alone(
    precision: NativePrecision, value: float
) -> None:
    skip_unless_native(precision)
    config = FAMILIES["hidden 48, heads of 16"]
    weights = random_model(config)[1]
    weights["embeddings.tokens.weight"][5, 3] = value
    native = NativeEncoder(config, weights, precision=precision, threads=1, merge_tokens=0.3)
    ids, lengths = random_tokens(config, [60, 70, 50])
    ids[ids == 5] = 6
    clean = native.hidden_states(ids, lengths)
    assert np.isfinite(clean).all()
    spoiled = ids.copy()
    spoiled[75] = 5
    hidden = native.hidden_states(spoiled, lengths)
    assert not np.isfinite(hidden[60:130]).any()
    np.testing.assert_array_equal(hidden[:60], clean[:60])
    np.testing.assert_array_equal(hidden[130:], clean[130:])
    np.testing.assert_array_equal(native.hidden_states(ids, lengths), clean)


def test_a_share_out_of_range_is_refused() -> None:
    skip_unless_native("fp32")
    with pytest.raises(ValueError, match=r"merge_tokens is 0.51; .* from 0 to 0.5"):
        NativeEncoder(BERT, random_model(BERT)[1], precision="fp32", merge_tokens=0.51)


def test_numpy_merges_no_tokens_whose_distances_count_either() -> None:
    config = FAMILIES["mpnet"]
    with pytest.raises(ValueError, match=r"merge_tokens is 0.2; merged tokens have no distance"):
        numpy_encoder(config, random_model(config)[1], 0.2)
