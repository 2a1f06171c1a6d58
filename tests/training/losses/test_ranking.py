"""Losses of rerankers over scores and ranked lists."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedkit.training.losses import (
    binary_cross_entropy,
    class_cross_entropy,
    lambda_loss,
    listmle,
    listnet,
    ranknet,
    score_mse,
    softmax_cross_entropy,
)

ListLoss = Callable[..., Tensor]
LIST_LOSSES: list[ListLoss] = [ranknet, listnet, listmle, lambda_loss]
LOG3 = math.log(3)


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers])


def test_binary_cross_entropy_of_two_pairs() -> None:
    """Score 0, label 1: log 2 = .6931; score log 3 (probability 3/4), label 0: log 4 = 1.3863; mean 1.0397."""
    scores, labels = torch.tensor([0.0, LOG3]), torch.tensor([1, 0])
    assert binary_cross_entropy(scores, labels).item() == pytest.approx(1.039721, abs=1e-6)
    doubled = binary_cross_entropy(scores, labels, positive_weight=2.0)
    assert doubled.item() == pytest.approx((2 * 0.693147 + 1.386294) / 2, abs=1e-6)


def test_softmax_cross_entropy_takes_column_0_as_the_positive() -> None:
    """Scores log 3, 0: the positive has 3/4; -log .75 = .2877."""
    assert softmax_cross_entropy(row(LOG3, 0.0)).item() == pytest.approx(0.287682, abs=1e-6)
    mask = torch.tensor([[True, True, False]])
    assert softmax_cross_entropy(row(LOG3, 0.0, 9.0), mask=mask).item() == pytest.approx(0.287682, abs=1e-6)


def test_ranknet_averages_over_pairs_in_the_wrong_or_right_order() -> None:
    """Best 0, others 1 and 3: log(1 + e) = 1.3133, log(1 + e^3) = 3.0486; mean 2.1809. At sigma 2: e^2, e^6."""
    scores, relevance = row(0.0, 1.0, 3.0), row(1.0, 0.0, 0.0)
    assert ranknet(scores, relevance).item() == pytest.approx(2.180924, abs=1e-6)
    steep = (math.log1p(math.exp(2)) + math.log1p(math.exp(6))) / 2
    assert ranknet(scores, relevance, sigma=2.0).item() == pytest.approx(steep, abs=1e-5)


def test_listnet_compares_top_one_probabilities() -> None:
    """Wanted (3/4, 1/4), got (1/4, 3/4): -.75 log .25 - .25 log .75 = 1.1116."""
    assert listnet(row(0.0, LOG3), row(LOG3, 0.0)).item() == pytest.approx(1.111642, abs=1e-6)


def test_listmle_is_the_likelihood_of_the_whole_order() -> None:
    """Weights 1, 2, 5, wanted order 2, 1, 5: 2/8 * 1/6 * 5/5 = 1/24; log 24 = 3.1781."""
    scores = row(0.0, math.log(2), math.log(5))
    assert listmle(scores, row(1.0, 2.0, 0.0)).item() == pytest.approx(math.log(24), abs=1e-6)


@pytest.mark.parametrize(("mu", "expected"), [(10.0, 5.331546), (0.0, 0.484686)])
def test_lambda_loss_weighs_a_pair_by_its_gain_and_places(mu: float, expected: float) -> None:
    """The relevant one is second: gains 1, 0; |1/1 - 1/log2 3| = .36907 = delta; (mu + 1) * .36907 * 1.31326."""
    loss = lambda_loss(row(0.0, 1.0), row(1.0, 0.0), mu=mu)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_lambda_loss_at_k_leaves_out_pairs_below_the_top() -> None:
    """At k = 1 of ranks 1, 2, 3 the pair (2, 3) is out; it takes no part in value or gradient."""
    scores = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    relevance = torch.tensor([[0.0, 2.0, 1.0]], dtype=torch.float64)
    loss = lambda_loss(scores, relevance, k=1, mu=0.0)
    # maxDCG@1 = 2^2 - 1 = 3: gains 0, 1, 1/3; pairs (1, 0) and (2, 0) of ranks (2, 1) and (3, 1)
    first = (1 - 1 / math.log2(3)) * 1 * math.log1p(math.exp(1))
    second = (1 - 1 / math.log2(4)) * (1 / 3) * math.log1p(math.exp(2))
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-12)


@pytest.mark.parametrize("loss", LIST_LOSSES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), candidates=st.integers(2, 7))
def test_the_order_of_candidates_and_a_constant_do_not_matter(
    loss: ListLoss, seed: int, candidates: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, candidates, dtype=torch.float64, generator=generator)
    relevance = torch.rand(2, candidates, dtype=torch.float64, generator=generator) * 3
    order = torch.randperm(candidates, generator=generator)
    shuffled = loss(scores[:, order] + 5, relevance[:, order])
    assert shuffled.item() == pytest.approx(loss(scores, relevance).item(), abs=1e-9)


@pytest.mark.parametrize("loss", LIST_LOSSES)
def test_padding_changes_neither_value_nor_gradient(loss: ListLoss) -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(2, 4, dtype=torch.float64, generator=generator)
    relevance = torch.randint(0, 4, (2, 4), generator=generator).double()
    relevance[:, 0] = 4.0
    plain = scores.clone().requires_grad_()
    expected = loss(plain, relevance)
    expected.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    junk = torch.tensor([[40.0, -3.0], [9.0, 1.0]], dtype=torch.float64)
    padded = torch.cat([junk[:, :1], scores, junk[:, 1:]], dim=1).requires_grad_()
    mask = torch.tensor([[False, True, True, True, True, False]] * 2)
    loss_padded = loss(padded, torch.cat([junk[:, 1:] + 8, relevance, junk[:, :1]], dim=1), mask=mask)
    loss_padded.backward()  # type: ignore[no-untyped-call]  # as above
    assert loss_padded.item() == pytest.approx(expected.item(), abs=1e-12)
    assert plain.grad is not None
    assert padded.grad is not None
    torch.testing.assert_close(padded.grad[:, 1:-1], plain.grad, rtol=0, atol=1e-12)
    assert not padded.grad[:, [0, -1]].any()


@pytest.mark.parametrize("loss", [ranknet, lambda_loss])
def test_equal_relevance_gives_zero_and_a_zero_gradient(loss: ListLoss) -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    value = loss(scores, torch.zeros(1, 3))
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    assert value.item() == 0.0
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros(1, 3))


@pytest.mark.parametrize("loss", LIST_LOSSES)
def test_list_errors_name_the_numbers(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"relevance has shape \(2, 2\); it needs \(2, 3\)"):
        loss(torch.zeros(2, 3), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"mask has shape \(1, 3\); it needs \(2, 3\)"):
        loss(torch.zeros(2, 3), torch.zeros(2, 3), mask=torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"mask is torch\.int64; it needs torch\.bool"):
        loss(torch.zeros(2, 3), torch.zeros(2, 3), mask=torch.ones(2, 3, dtype=torch.long))
    with pytest.raises(
        ValueError, match=r"1 candidate a query; there is nothing to rank, so give at least 2"
    ):
        loss(torch.zeros(2, 1), torch.zeros(2, 1))


def test_other_errors_name_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"labels has shape \(3,\); it needs \(2,\)"):
        binary_cross_entropy(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"scores has shape \(2, 1\); it needs \(B,\)"):
        binary_cross_entropy(torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(ValueError, match=r"positive_weight is 0"):
        binary_cross_entropy(torch.zeros(2), torch.zeros(2), positive_weight=0)
    with pytest.raises(ValueError, match=r"softmax_cross_entropy: 1 candidate a query"):
        softmax_cross_entropy(torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"lambda_loss: k is 0"):
        lambda_loss(torch.zeros(1, 2), torch.zeros(1, 2), k=0)
    with pytest.raises(ValueError, match=r"ranknet: sigma is -1"):
        ranknet(torch.zeros(1, 2), torch.zeros(1, 2), sigma=-1)


def test_scores_are_held_against_labels_and_logits_against_classes() -> None:
    """(1 - 3)² and (2 - 2)²: 2; two equal logits: log 2."""
    assert score_mse(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])).item() == 2.0
    loss = class_cross_entropy(torch.zeros(1, 2), torch.tensor([1.0]))  # classes come as numbers of any type
    assert loss.item() == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match=r"score_mse: labels has shape \(3,\); it needs \(2,\)"):
        score_mse(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"class_cross_entropy: classes has shape \(3,\); it needs \(2,\)"):
        class_cross_entropy(torch.zeros(2, 2), torch.zeros(3))
