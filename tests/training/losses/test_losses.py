"""Promises that all losses keep: right gradients, one number, and a table that lists them all."""

import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from embedkit.training import losses
from tests.finite_differences import assert_gradients

LABELS = torch.tensor([0, 0, 1, 1, 2])
ALIKE = torch.tensor([True, False, True, False, False])
SCORES = torch.tensor([0.1, 0.9, 0.4, 0.4, 0.7], dtype=torch.float64)
MASK = torch.tensor([[True, True, True, False]] * 5)
GRADES = torch.tensor([[3.0, 0.0, 1.0, 2.0]] * 5, dtype=torch.float64)
IDS = torch.tensor([[1, 2, 0, 3], [2, 2, 1, 0], [0, 1, 3, 2], [3, 3, 0, 1], [1, 0, 2, 3]])


def cut(loss: Callable[..., Tensor], count: int) -> Callable[[Tensor], Tensor]:
    """Feed a loss with (5, 4) slices of one tensor."""
    return lambda x: loss(*(x[:, i] for i in range(count)))


def normalized_info_nce(first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    return losses.info_nce(first, second, temperature=temperature[0, 0].exp(), symmetric=True)


# Name of the loss -> a function of one (5, 4, 4) tensor, differentiable where random numbers fall.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "info_nce": cut(normalized_info_nce, 3),
    "simcse": cut(losses.simcse, 2),
    "pair_classification": cut(
        lambda u, v, w: losses.pair_classification(u, v, LABELS, weight=w[:3].repeat(1, 3)), 3
    ),
    "cosine_regression": cut(lambda u, v: losses.cosine_regression(u, v, SCORES), 2),
    "cosent": cut(lambda u, v: losses.cosent(u, v, SCORES), 2),
    "angle": cut(lambda u, v: losses.angle(u, v, SCORES), 2),
    "contrastive": cut(lambda u, v: losses.contrastive(u, v, ALIKE, margin=1.5), 2),
    "online_contrastive": cut(lambda u, v: losses.online_contrastive(u, v, ALIKE, margin=1.5), 2),
    "triplet": cut(losses.triplet, 3),
    "batch_all_triplet": cut(lambda u: losses.batch_all_triplet(u, LABELS), 1),
    "batch_hard_triplet": cut(lambda u: losses.batch_hard_triplet(u, LABELS, margin="soft"), 1),
    "batch_semi_hard_triplet": cut(lambda u: losses.batch_semi_hard_triplet(u, LABELS), 1),
    "embedding_mse": cut(lambda u: losses.embedding_mse(u, GRADES), 1),
    "cosine_distance": cut(lambda u: losses.cosine_distance(u, GRADES + 1), 1),
    "similarity_distillation": cut(
        lambda u: losses.similarity_distillation(u, GRADES + 1, GRADES - 1, temperature=1.0), 1
    ),
    "kl_of_margins": cut(lambda u, v: losses.kl_of_margins(u[:, 0], v, GRADES.where(MASK, torch.nan)), 2),
    "margin_mse": cut(lambda u, v: losses.margin_mse(u[:, 0], v, GRADES), 2),
    "kl_distillation": cut(lambda u: losses.kl_distillation(u, GRADES, temperature=2.0, mask=MASK), 1),
    "binary_cross_entropy": cut(lambda u: losses.binary_cross_entropy(u[:, 0], SCORES), 1),
    "score_mse": cut(lambda u: losses.score_mse(u[:, 0], SCORES), 1),
    "class_cross_entropy": cut(lambda u: losses.class_cross_entropy(u, LABELS), 1),
    "softmax_cross_entropy": cut(lambda u: losses.softmax_cross_entropy(u, mask=MASK), 1),
    "ranknet": cut(lambda u: losses.ranknet(u, GRADES, mask=MASK), 1),
    "listnet": cut(lambda u: losses.listnet(u, GRADES, mask=MASK), 1),
    "listmle": cut(lambda u: losses.listmle(u, GRADES, mask=MASK), 1),
    "lambda_loss": cut(lambda u: losses.lambda_loss(u, GRADES, mask=MASK), 1),
    "load_balance": cut(lambda u: losses.load_balance(u, torch.tensor([3.0, 0.0, 1.0, 2.0]), count=7), 1),
    "router_z": cut(lambda u: losses.router_z(u, count=7), 1),
    "clear_selection": cut(lambda u: losses.clear_selection(u[:, 0], ALIKE, count=7), 1),
    "token_cross_entropy": lambda x: losses.token_cross_entropy(x, IDS, IDS > 0),
    "matryoshka": cut(losses.matryoshka(partial(losses.info_nce, temperature=0.5), dims=[2, 4]), 2),
    # The last layer is a constant here: as the target of the divergence it has no gradient.
    "adaptive_layer": lambda x: losses.adaptive_layer(lambda e: losses.simcse(e, e.flip(1)))(
        torch.cat([x[:, :3], x[:, 3:].detach()], dim=1)
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 4, 4, dtype=torch.float64, generator=generator)
    if (
        name == "adaptive_layer"
    ):  # finite differences see the detached layer too, so leave it out of the inputs
        earlier, last = x[:, :3].clone().requires_grad_(), x[:, 3:]
        assert_gradients(lambda e: FUNCTIONS[name](torch.cat([e, last], dim=1)), [earlier])
    else:
        assert_gradients(FUNCTIONS[name], [x.requires_grad_()])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loss_is_one_number_of_the_inputs_type(name: str) -> None:
    x = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(1))
    value = FUNCTIONS[name](x)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert value.isfinite()


def test_every_public_loss_is_in_the_table_and_checked_here() -> None:
    functions = {name for name in losses.__all__ if inspect.isfunction(getattr(losses, name))}
    assert functions - {"false_negatives"} == set(FUNCTIONS)
    assert losses.__doc__ is not None
    assert [name for name in functions if f"`{name}`" not in losses.__doc__] == []
