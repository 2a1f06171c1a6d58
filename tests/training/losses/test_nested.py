"""Matryoshka and adaptive layers around a loss."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from embedkit.training.losses import adaptive_layer, embedding_mse, info_nce, matryoshka


def test_matryoshka_sums_the_loss_over_widths() -> None:
    """(3, 4) against (0, 1): cut to 1: 9, twice; whole: (9 + 9) / 2 = 9. 27."""
    loss = matryoshka(embedding_mse, dims=[1, 2], weights=[2.0, 1.0], normalize=False)
    assert loss(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0]])).item() == 27.0


def test_matryoshka_brings_what_is_left_to_unit_length() -> None:
    """(3, 4, 12) cut to 2 is (.6, .8), against (0, 1): (.36 + .04) / 2 = .2."""
    loss = matryoshka(embedding_mse, dims=[2])
    assert loss(torch.tensor([[3.0, 4.0, 12.0]]), torch.tensor([[0.0, 2.0, 0.0]])).item() == pytest.approx(
        0.2
    )


def test_matryoshka_of_the_full_width_is_the_loss_itself() -> None:
    rows = torch.nn.functional.normalize(
        torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    plain = partial(info_nce, temperature=0.1)
    nested = matryoshka(plain, dims=[6])
    assert nested(rows[0], rows[1]).item() == pytest.approx(plain(rows[0], rows[1]).item(), rel=1e-6)


def test_adaptive_layer_adds_earlier_layers_and_their_divergence_from_the_last() -> None:
    """Layer (0, 0) is (1/2, 1/2); the last, (.3 log 3, 0), is (3/4, 1/4) at .3: .3296 + 0 + .3 * .1308 = .3688."""
    layers = torch.tensor([[[0.0, 0.0], [0.3 * math.log(3), 0.0]]])
    assert adaptive_layer(Tensor.sum)(layers).item() == pytest.approx(0.368827, abs=1e-6)


def test_adaptive_layer_averages_the_earlier_layers() -> None:
    """Sums 2 and 4 before the last, 6: 6 + .5 * (2 + 4) / 2 = 7.5."""
    layers = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
    loss = adaptive_layer(Tensor.sum, prior_layers_weight=0.5, kl_weight=0.0)
    assert loss(layers).item() == pytest.approx(7.5)


def test_the_last_layer_is_a_fixed_target() -> None:
    layers = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = adaptive_layer(lambda e: 0.0 * e.sum())
    loss(layers).backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    assert layers.grad is not None
    assert not layers.grad[:, -1].any()
    assert layers.grad[:, 0].any()


def test_errors_name_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"embeddings of 4 dimensions cannot be cut to 8"):
        matryoshka(embedding_mse, dims=[2, 8])(torch.zeros(1, 4), torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"1 weights for 2 dims"):
        matryoshka(embedding_mse, dims=[2, 8], weights=[1.0])
    with pytest.raises(ValueError, match=r"dims are \[2, 2\]; they must be distinct"):
        matryoshka(embedding_mse, dims=[2, 2])
    with pytest.raises(ValueError, match=r"dims are \[\]"):
        matryoshka(embedding_mse, dims=[])
    with pytest.raises(ValueError, match=r"kl_temperature is 0"):
        adaptive_layer(Tensor.sum, kl_temperature=0)
    with pytest.raises(
        ValueError, match=r"embeddings of 1 layer; give the last layer and at least one before"
    ):
        adaptive_layer(Tensor.sum)(torch.zeros(2, 1, 4))
    with pytest.raises(ValueError, match=r"embedding 1 has shape \(2, 4\); it needs \(N, L, E\)"):
        adaptive_layer(Tensor.sum)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"embedding 2 has shape \(2, 2, 4\); it needs \(N, 3, E\)"):
        adaptive_layer(embedding_mse)(torch.zeros(2, 3, 4), torch.zeros(2, 2, 4))
