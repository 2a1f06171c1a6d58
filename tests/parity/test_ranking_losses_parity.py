"""Our losses of rerankers against those of sentence-transformers, in value and gradient, on the same random scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from embedkit.training import losses

pytestmark = pytest.mark.parity

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

from sentence_transformers.cross_encoder import CrossEncoder  # noqa: E402  (after the check)
from sentence_transformers.cross_encoder import losses as cross  # noqa: E402

TOLERANCE = 1e-5  # float32, sums in another order

Loss = Callable[..., Tensor]


def assert_equal(ours: Loss, reference: Loss, scores: Tensor) -> None:
    results = []
    for loss in (ours, reference):
        copy = scores.clone().requires_grad_()
        value = loss(copy)
        results.append((value.detach(), torch.autograd.grad(value, copy)[0]))
    (value, gradient), (their_value, their_gradient) = results
    assert value.item() == pytest.approx(their_value.item(), abs=TOLERANCE, rel=TOLERANCE)
    assert their_gradient.abs().max() > 1e-4  # else there is nothing to compare
    torch.testing.assert_close(gradient, their_gradient, rtol=0, atol=TOLERANCE)


class GivenScores(CrossEncoder):  # type: ignore[misc]  # the library is untyped
    """A cross-encoder whose score of query "i" with document "j" is scores[i, j]."""

    device = torch.device("cpu")

    def __init__(self, scores: Tensor) -> None:
        nn.Sequential.__init__(self)
        self.scores = scores

    def preprocess(self, pairs: list[tuple[str, str]], **_: Any) -> dict[str, Tensor]:
        return {"pairs": torch.tensor([[int(query), int(document)] for query, document in pairs])}

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        rows, places = features["pairs"].unbind(1)
        return {"scores": self.scores[rows, places].unsqueeze(1)}


RELEVANCE = torch.tensor([[0.0, 3.0, 1.0, 2.0], [2.0, 0.0, 1.0, 0.0], [1.0, 3.0, 2.0, 0.5]])
MASK = torch.tensor([[True] * 4, [True, True, True, False], [True] * 4])
QUERIES = ["0", "1", "2"]

LIST_LOSSES: dict[str, tuple[Loss, Callable[[Any], Any]]] = {
    "ranknet": (losses.ranknet, lambda m: cross.RankNetLoss(m, reduction_log="natural")),
    "ranknet, sigma": (
        partial(losses.ranknet, sigma=2.0),
        lambda m: cross.RankNetLoss(m, sigma=2.0, reduction_log="natural"),
    ),
    "listnet": (losses.listnet, cross.ListNetLoss),
    "listmle": (losses.listmle, lambda m: cross.ListMLELoss(m, respect_input_order=False)),
    "lambda": (losses.lambda_loss, lambda m: cross.LambdaLoss(m, reduction_log="natural")),
    "lambda, k": (
        partial(losses.lambda_loss, k=2),
        lambda m: cross.LambdaLoss(m, k=2, reduction_log="natural"),
    ),
    "lambdarank": (
        partial(losses.lambda_loss, mu=0.0),
        lambda m: cross.LambdaLoss(m, cross.LambdaRankScheme(), reduction_log="natural"),
    ),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", LIST_LOSSES)
def test_list_losses(name: str, seed: int) -> None:
    ours, make = LIST_LOSSES[name]
    scores = 2 * torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))
    documents = [[str(j) for j in range(4) if MASK[i, j]] for i in range(3)]
    labels = [RELEVANCE[i][MASK[i]] for i in range(3)]

    def reference(x: Tensor) -> Tensor:
        value: Tensor = make(GivenScores(x))([QUERIES, documents], labels)
        return value

    assert_equal(lambda x: ours(x, RELEVANCE, mask=MASK), reference, scores)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_binary_cross_entropy(weight: float) -> None:
    labels = torch.tensor([1.0, 0.0, 0.3])

    def reference(scores: Tensor) -> Tensor:
        loss = cross.BinaryCrossEntropyLoss(GivenScores(scores.unsqueeze(1)), pos_weight=torch.tensor(weight))
        value: Tensor = loss([QUERIES, ["0"] * 3], labels)
        return value

    ours = partial(losses.binary_cross_entropy, labels=labels, positive_weight=weight)
    assert_equal(ours, reference, torch.tensor([0.5, 2.0, -1.0]))


def test_softmax_cross_entropy() -> None:
    def reference(scores: Tensor) -> Tensor:
        loss = cross.MultipleNegativesRankingLoss(GivenScores(scores), scale=1, activation_fn=None)
        value: Tensor = loss.calculate_loss(list(torch.unbind(scores, dim=1)), len(scores))
        return value

    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert_equal(losses.softmax_cross_entropy, reference, scores)


def test_margin_mse_of_a_reranker() -> None:
    margins = torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]])

    def reference(scores: Tensor) -> Tensor:
        texts = [QUERIES, ["0"] * 3, ["1"] * 3, ["2"] * 3]
        value: Tensor = cross.MarginMSELoss(GivenScores(scores))(texts, margins)
        return value

    def ours(scores: Tensor) -> Tensor:
        return losses.margin_mse(scores[:, 0], scores[:, 1:3], margins)

    assert_equal(ours, reference, torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))
