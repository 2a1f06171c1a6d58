"""Pooling, dense layers and norm in numpy give what the modules of torch give."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.inference.numpy_runtime.activations import ACTIVATIONS
from embedkit.inference.numpy_runtime.sentence_head import SentenceHead, normalize, runs
from embedkit.model.config import (
    Activation,
    DenseActivation,
    DenseConfig,
    HeadActivation,
    LayerNormConfig,
    PoolingMode,
    SentenceConfig,
)
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.feed_forward import activate
from embedkit.model.sentence import DENSE_ACTIVATIONS, SentenceEncoder
from tests.tiny import tiny_config

SIZE = 32
MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)
TOLERANCE = 2e-6  # fp32, summed in another order


def test_mean_by_hand() -> None:
    """Two sequences, of 2 tokens and of 1: (1 + 3) / 2 = 2 and 5."""
    head = SentenceHead(SentenceConfig(), ())
    hidden = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    np.testing.assert_array_equal(head(hidden, np.array([2, 1])), [[2, 3], [5, 6]])


def test_runs_by_hand() -> None:
    assert list(runs(np.array([3, 3, 5, 3]))) == [(0, 2, 0, 3), (2, 1, 6, 5), (3, 1, 11, 3)]
    assert list(runs(np.array([], np.int64))) == []


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    skip=st.integers(0, 10),  # also more than a sequence has
    modes=st.permutations(MODES).map(lambda modes: modes[:2]),
    normalized=st.booleans(),
)
def test_pooling_is_that_of_torch(
    lengths: list[int], skip: int, modes: list[PoolingMode], normalized: bool
) -> None:
    config = SentenceConfig(pooling=tuple(modes), normalize=normalized)
    hidden = np.random.default_rng(0).standard_normal((sum(lengths), SIZE)).astype(np.float32)
    model = SentenceEncoder(TransformerEncoder(tiny_config(hidden_size=SIZE)), config)
    with torch.no_grad():
        wanted = model.pool_packed(torch.from_numpy(hidden), lengths, skip=skip)
    found = SentenceHead(config, ())(hidden, np.array(lengths), skip=skip)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


@pytest.mark.parametrize("activation", get_args(DenseActivation))
def test_dense_layers_and_layer_norms_are_those_of_torch(activation: DenseActivation) -> None:
    dense = (
        DenseConfig(in_features=SIZE, out_features=8, activation=activation),
        LayerNormConfig(size=8),
        DenseConfig(in_features=8, out_features=5, activation=activation, bias=False),
    )
    torch.manual_seed(0)
    model = SentenceEncoder(TransformerEncoder(tiny_config()), SentenceConfig(dense=dense))
    torch.nn.init.normal_(model.dense[1][0].weight)  # type: ignore[index] # a Sequential
    hidden = torch.randn(7, SIZE) * 3
    with torch.no_grad():
        wanted = model.pool_packed(hidden, [3, 4])
    weights = [{name: tensor.numpy() for name, tensor in layer.state_dict().items()} for layer in model.dense]
    found = SentenceHead(model.config, weights)(hidden.numpy(), np.array([3, 4]))
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


def test_activations_are_those_of_torch_also_far_out() -> None:
    x = np.concatenate([np.linspace(-12, 12, 4001), [-1e4, -100, 0, 100, 1e4]]).astype(np.float32)
    tensor = torch.from_numpy(x)
    for name in get_args(DenseActivation):
        np.testing.assert_allclose(
            ACTIVATIONS[name](x), DENSE_ACTIVATIONS[name]()(tensor), atol=1e-6, rtol=1e-6
        )
    for name in get_args(Activation):
        np.testing.assert_allclose(ACTIVATIONS[name](x), activate(tensor, name), atol=1e-6, rtol=1e-6)
    assert set(get_args(HeadActivation)) <= set(ACTIVATIONS)
    assert {ACTIVATIONS[name](x).dtype for name in ACTIVATIONS} == {np.dtype(np.float32)}


def test_a_zero_row_stays_zero() -> None:
    np.testing.assert_array_equal(
        normalize(np.array([[3, 4], [0, 0]], np.float32)), np.array([[0.6, 0.8], [0, 0]], np.float32)
    )
