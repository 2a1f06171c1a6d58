"""MaxSim of whole batches: against the plain loops, in chunks, and its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from embedkit.model import late_interaction
from embedkit.model.late_interaction import MaxSimilarity

SIZE = 4


def rows(lengths: list[int], width: int, *, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Texts of so many random unit vectors, filled up with zeros: (N, width·E)."""
    torch.manual_seed(seed)
    out = torch.zeros(len(lengths), width, SIZE, dtype=dtype)
    for row, length in enumerate(lengths):
        out[row, :length] = torch.nn.functional.normalize(torch.randn(length, SIZE, dtype=dtype), dim=-1)
    return out.view(len(lengths), -1)


def plain(query: Tensor, document: Tensor) -> float:
    asked = [token for token in query.view(-1, SIZE) if token.any()]
    found = [token for token in document.view(-1, SIZE) if token.any()]
    if not asked or not found:
        return 0.0
    return sum(max(float(one @ other) for other in found) for one in asked) / len(asked)


def test_a_worked_example() -> None:
    """Of the query's two tokens one stands in the document, the other is at a right angle to all of it: (1 + 0) / 2."""
    query = torch.tensor([[1.0, 0, 0, 0, 0, 1, 0, 0]])
    document = torch.tensor([[1.0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(MaxSimilarity(SIZE).matrix(query, document), torch.tensor([[0.5]]))


def test_it_is_that_of_plain_loops_whatever_is_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents = rows([3, 1, 0, 5], 5, seed=0), rows([2, 6, 0, 1, 4], 7, seed=1)
    wanted = torch.tensor([[plain(query, document) for document in documents] for query in queries])
    similarity = MaxSimilarity(SIZE)
    torch.testing.assert_close(similarity.matrix(queries, documents), wanted)
    partners = similarity.pairs(queries[:, None], documents[None])
    torch.testing.assert_close(partners, wanted)
    monkeypatch.setattr(late_interaction, "CHUNK_COSINES", 100)
    torch.testing.assert_close(similarity.matrix(queries, documents), wanted)
    assert similarity.matrix(queries[:0], documents).shape == (0, 5)


def test_all_cosines_below_zero_are_not_outdone_by_what_is_filled_up() -> None:
    query = torch.tensor([[1.0, 0, 0, 0]])
    document = torch.tensor([[-1.0, 0, 0, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(MaxSimilarity(SIZE).matrix(query, document), torch.tensor([[-1.0]]))


def test_its_gradient_is_that_of_its_values() -> None:
    queries = rows([2, 3], 3, seed=2, dtype=torch.float64).requires_grad_()
    documents = rows([3, 1], 3, seed=3, dtype=torch.float64)
    filled = documents.view(2, 3, SIZE).abs().amax(-1) > 0
    similarity = MaxSimilarity(SIZE)
    similarity.matrix(queries, documents.requires_grad_()).sum().backward()  # type: ignore[no-untyped-call] # torch's
    assert documents.grad is not None
    assert queries.grad is not None
    assert not documents.grad.view(2, 3, SIZE)[~filled].any()
    step = 1e-6
    moved = queries.detach().clone()
    moved[0, 1] += step
    change = similarity.matrix(moved, documents).sum() - similarity.matrix(queries, documents).sum()
    torch.testing.assert_close(change / step, queries.grad[0, 1], rtol=1e-5, atol=1e-5)
