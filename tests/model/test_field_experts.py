"""The mixture of experts over the fields of documents: by hand, by its formula, with fields that are missing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from embedkit.model.field_experts import FieldExperts, GatedUnits
from embedkit.model.learned_parts import LEAST_LOG_WEIGHT, SimilarityConfig
from tests.finite_differences import assert_gradients

ROUNDING = 1e-10  # of float64
FIELDS = SimilarityConfig(kind="fields", fields=("title", "text", "code"))


def unit(*shape: int, seed: int = 1) -> Tensor:
    vectors = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


def random_experts(size: int = 4, *, seed: int = 0) -> FieldExperts:
    torch.manual_seed(seed)
    experts = FieldExperts(size, FIELDS).double()
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    return experts


def with_gaps(vectors: Tensor) -> Tensor:
    """Take the title of document 1 and all but the text of document 2 away: (N, 3, E)."""
    vectors = vectors.clone()
    vectors[1, 0] = 0
    vectors[2, [0, 2]] = 0
    return vectors


def by_formula(experts: FieldExperts, query: Tensor, document: Tensor) -> Tensor:
    """Compare one query, (E,), with the fields of one document, (F, E), as the paper's equations say."""
    scale = math.sqrt(len(query))

    def expert(units: GatedUnits, field: int, vector: Tensor) -> Tensor:
        inner = units.weight[field] @ (scale * vector) + units.bias[field]
        gated = inner * torch.sigmoid(units.gate[field] @ inner + units.gate_bias[field])
        unit_length: Tensor = gated / gated.norm()
        return unit_length

    there = [field for field, vector in enumerate(document) if vector.any()]
    weights = torch.stack([experts.router.weight[field] @ (scale * query) for field in there]).softmax(dim=0)
    cosines = [
        expert(experts.query_experts, field, query) @ expert(experts.document_experts, field, document[field])
        for field in there
    ]
    return weights @ torch.stack(cosines)


def test_a_similarity_by_hand() -> None:
    """Experts as they start, and weights ¾ and ¼: ¾ · 0.6 + ¼ · 1 = 0.7; with one field it is that field's cosine alone."""
    experts = FieldExperts(2, SimilarityConfig(kind="fields", fields=("title", "text")))
    with torch.no_grad():
        experts.router.weight[0, 0] = math.log(3) / math.sqrt(2)
    queries = experts.queries(torch.tensor([[1.0, 0.0]]))
    assert queries.flatten().tolist() == pytest.approx([0.75, 0, 0.25, 0])
    both, title, text = [[0.6, 0.8], [1.0, 0.0]], [[0.6, 0.8], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]
    documents = experts.documents(torch.tensor([both, title, text]))
    assert documents[1].tolist() == pytest.approx([0.6, 0.8, 0, 0])
    assert experts(queries, documents)[0].tolist() == pytest.approx([0.7, 0.6, 1.0])


def test_a_gated_unit_by_hand() -> None:
    """(1, 2) swapped is (2, 1); gates ½ and ¾ make (1, ¾), of length 5/4: (0.8, 0.6)."""
    units = GatedUnits(1, 2)
    with torch.no_grad():
        units.weight[0] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        units.gate_bias[0, 1] = math.log(3)
    assert units(torch.tensor([[[1.0, 2.0]]])).flatten().tolist() == pytest.approx([0.8, 0.6])
    with torch.no_grad():  # the other gate by what comes in: σ(ln 3 · 2 / 2) = ¾ too, so (3/2, 3/4)
        units.gate[0, 0, 0] = math.log(3) / 2
    expected = [2 / math.sqrt(5), 1 / math.sqrt(5)]
    assert units(torch.tensor([[[1.0, 2.0]]])).flatten().tolist() == pytest.approx(expected)


def test_it_equals_the_formula_whatever_fields_are_missing() -> None:
    experts, queries, documents = random_experts(), unit(5, 4), with_gaps(unit(4, 3, 4, seed=2))
    laid_out = experts.queries(queries), experts.documents(documents)
    matrix = experts(*laid_out)
    assert matrix.shape == (5, 4)
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            expected = by_formula(experts, query, document)
            torch.testing.assert_close(matrix[i, j], expected, rtol=0, atol=ROUNDING)
    pairs = experts.pairs(laid_out[0][:4], laid_out[1])
    torch.testing.assert_close(pairs, matrix[:4].diagonal(), rtol=0, atol=ROUNDING)
    of_each = experts.pairs(laid_out[0][:, None], laid_out[1].expand(5, 4, -1))
    torch.testing.assert_close(of_each, matrix, rtol=0, atol=ROUNDING)


def test_gradients_are_those_of_finite_differences() -> None:
    experts, queries, documents = random_experts(), unit(2, 4), with_gaps(unit(3, 3, 4, seed=2))
    names = [name for name, _ in experts.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in experts.parameters()]
    there = documents.any(dim=-1, keepdim=True)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = experts

        def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
            compared: Tensor = experts(experts.queries(queries), experts.documents(documents))
            return compared

    def run(q: Tensor, d: Tensor, *weights: Tensor) -> Tensor:
        given = {f"experts.{name}": weight for name, weight in zip(names, weights, strict=True)}
        # A missing field stays so: its zeros are no vector to differentiate by.
        out: Tensor = torch.func.functional_call(Whole(), given, (q, torch.where(there, d, 0)))
        return out

    assert_gradients(run, [queries.requires_grad_(), documents.requires_grad_(), *values])


def test_new_experts_compare_by_the_mean_of_the_cosines_of_the_fields_there() -> None:
    experts = FieldExperts(4, FIELDS).double()
    queries, documents = unit(2, 4), with_gaps(unit(3, 3, 4, seed=2))
    cosines = torch.einsum("qe,nfe->qnf", queries, documents)
    expected = cosines.sum(dim=-1) / documents.any(dim=-1).sum(dim=-1)
    found = experts(experts.queries(queries), experts.documents(documents))
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


def test_nothing_compares_with_nothing() -> None:
    experts = random_experts()
    documents = experts.documents(torch.zeros(1, 3, 4, dtype=torch.float64))
    assert not documents.any()
    assert experts(experts.queries(unit(2, 4)), documents).tolist() == [[0.0], [0.0]]
    assert not experts.queries(torch.zeros(1, 4, dtype=torch.float64)).any()


def test_a_field_that_a_query_gives_no_weight_decides_alone_where_it_stands_alone() -> None:
    experts = FieldExperts(2, SimilarityConfig(kind="fields", fields=("title", "text")))
    with torch.no_grad():
        experts.router.weight[0, 0] = 200.0
    query, document = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.0, 0.0], [0.6, 0.8]]])
    queries = experts.queries(query)
    assert queries[0, 2].item() == pytest.approx(math.exp(LEAST_LOG_WEIGHT))
    assert experts(queries, experts.documents(document)).item() == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "fields"}, r"fields are \[\] of a fields similarity"),
        ({"kind": "bilinear", "fields": ("title",)}, "fields are .* of a bilinear similarity"),
        ({"kind": "fields", "fields": ("title", "text", "title")}, "'title' stands there twice"),
        ({"kind": "fields", "fields": ("title", " ")}, "number 2 has no name"),
    ],
)
def test_fields_that_make_no_sense_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimilarityConfig(**settings)  # type: ignore[arg-type] # a test's words
