"""Whitening: the map by hand, what it is put into, and that vectors of a folder on disk are those of the map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedkit.errors import TrainingError
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.sentence_config import DenseConfig, SentenceConfig
from embedkit.model.static import StaticEncoder
from embedkit.training import whitening
from embedkit.training.whitening import LinearMap, add_linear, fit_whitening, mean_cosine
from tests.tiny import tiny_config

IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 8, 5, 3]])


def correlated(count: int, width: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(count, width)) @ np.diag([4.0, 2.0, 1.0, 0.5]) @ rng.normal(size=(width, width))
    return (mixed + 3).astype(np.float32)


def mapped(linear: LinearMap, vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = vectors @ linear.weight.T
    return found if linear.bias is None else found + linear.bias


def test_two_directions_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors (±4, 0) and (0, ±2) about (1, 1): variances 8 and 2, of which the average is 5."""
    monkeypatch.setattr(whitening, "SHRINKAGE", 0.0)
    vectors = np.array([[5, 1], [-3, 1], [1, 3], [1, -1]] * 500, np.float32)
    found = fit_whitening(vectors, 1.0)
    shrunk = 2 / (2 + 2000)  # of E / (E + N)
    variances = (1 - shrunk) * np.array([8.0, 2.0]) + shrunk * 5
    np.testing.assert_allclose(found.weight, np.diag((variances / 5) ** -0.5), atol=1e-9)
    np.testing.assert_allclose(mapped(found, np.ones((1, 2))), 0, atol=1e-9)


def test_less_centring_leaves_some_of_the_mean_and_the_mean_cosine_says_how_much_there_is() -> None:
    """Vectors (3, 4) and (-4, 3): unit vectors (.6, .8) and (-.8, .6), of which the mean is (-.1, .7) and its square .5."""
    vectors = np.array([[3, 4], [-4, 3], [0, 0]], np.float32)
    assert mean_cosine(vectors) == pytest.approx(0.5)
    assert mean_cosine(vectors[2:]) == 0
    half, whole = (fit_whitening(vectors, 0.0, centring=share) for share in (0.5, 1.0))
    assert whole.bias is not None
    assert half.bias is not None
    np.testing.assert_allclose(whole.bias, [0.5, -3.5], atol=1e-6)
    np.testing.assert_allclose(half.bias, whole.bias / 2, atol=1e-6)


def test_full_strength_evens_out_all_directions_and_none_only_centres(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(whitening, "SHRINKAGE", 0.0)
    vectors = correlated(20_000)
    full, none = fit_whitening(vectors, 1.0), fit_whitening(vectors, 0.0)
    covariance = np.cov(mapped(full, vectors).T)
    np.testing.assert_allclose(covariance / covariance[0, 0], np.eye(4), atol=0.02)
    np.testing.assert_allclose(none.weight, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(mapped(none, vectors).mean(axis=0), 0, atol=1e-3)


def test_few_vectors_change_less_and_zero_vectors_do_not_count() -> None:
    vectors = correlated(400)
    few, many = fit_whitening(vectors[:3], 1.0), fit_whitening(vectors, 1.0)
    spread = [np.ptp(np.linalg.eigvalsh(each.weight)) for each in (few, many)]
    assert 0 < spread[0] < spread[1]
    padded = np.concatenate([np.zeros((50, 4), np.float32), vectors])
    np.testing.assert_array_equal(fit_whitening(padded, 0.5).weight, fit_whitening(vectors, 0.5).weight)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_vectors_that_do_not_differ_are_refused(count: int) -> None:
    with pytest.raises(TrainingError, match=f"the {count} vectors .* do not differ"):
        fit_whitening(np.full((count, 4), 0.3, np.float32), 0.4)


@pytest.mark.parametrize(
    ("dense", "layers"),
    [
        ((), 1),
        ((DenseConfig(in_features=16, out_features=4, bias=False, activation="identity"),), 1),
        ((DenseConfig(in_features=16, out_features=4, activation="identity"),), 1),
        ((DenseConfig(in_features=16, out_features=4, activation="tanh"),), 2),
        ((DenseConfig(in_features=16, out_features=16, activation="identity", residual=True),), 2),
    ],
)
@pytest.mark.parametrize("centred", [True, False])
def test_it_goes_into_a_last_layer_that_is_linear_or_behind_it(
    dense: tuple[DenseConfig, ...], layers: int, centred: bool
) -> None:
    torch.manual_seed(0)
    model = SentenceEncoder(
        TransformerEncoder(tiny_config(hidden_size=16)), SentenceConfig(dense=dense, normalize=True)
    ).eval()
    with torch.no_grad():
        model.config, config = SentenceConfig(dense=dense), model.config
        plain = model(IDS).double().numpy()
        model.config = config
        linear = fit_whitening(
            np.random.default_rng(1).normal(size=(50, plain.shape[1])).astype(np.float32), 0.7
        )
        if not centred:
            linear = LinearMap(linear.weight)
        expected = mapped(linear, plain)
        add_linear(model, linear)
        np.testing.assert_allclose(
            model(IDS).numpy(), expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6
        )
    assert len(model.dense) == len(model.config.dense) == layers
    assert model.config.normalize
    last = model.config.dense[-1]
    assert isinstance(last, DenseConfig)
    had_bias = layers == 1 and any(isinstance(each, DenseConfig) and each.bias for each in dense)
    assert last.bias == (centred or had_bias)


@pytest.mark.parametrize("centred", [True, False])
def test_in_a_static_model_it_goes_into_the_table(centred: bool) -> None:
    torch.manual_seed(0)
    model = StaticEncoder(20, 4)
    with torch.no_grad():
        model.normalize = False
        plain = model.forward_packed(IDS.flatten(), [4, 6]).double().numpy()
        linear = fit_whitening(correlated(50), 0.7)
        if not centred:
            linear = LinearMap(linear.weight)
        add_linear(model, linear)
        expected = mapped(linear, plain)
        np.testing.assert_allclose(model.forward_packed(IDS.flatten(), [4, 6]).numpy(), expected, atol=1e-5)
