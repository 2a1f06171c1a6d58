"""InfoNCE, SimCSE and the marking of false negatives."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedkit.training.losses import false_negatives, info_nce, simcse

QUERIES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
DOCUMENTS = torch.tensor([[1.0, 0.0], [0.6, 0.8]])


def unit_rows(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(
        torch.randn(rows, width, dtype=torch.float64, generator=generator), dim=1
    )


def test_info_nce_is_the_cross_entropy_of_each_query_over_all_documents() -> None:
    """Logits (1, .6) and (0, .8): log(1 + e^-.4) = .5130 and log(1 + e^-.8) = .3711, mean .4421."""
    assert info_nce(QUERIES, DOCUMENTS, temperature=1.0).item() == pytest.approx(0.442058, abs=1e-6)


def test_info_nce_divides_by_the_temperature() -> None:
    """At 1/2: log(1 + e^-.8) = .3711 and log(1 + e^-1.6) = .1839, mean .2775."""
    assert info_nce(QUERIES, DOCUMENTS, temperature=0.5).item() == pytest.approx(0.277501, abs=1e-6)


def test_symmetric_info_nce_is_the_mean_of_both_directions() -> None:
    """Columns (1, 0) and (.6, .8): log(1 + e^-1) = .3133, log(1 + e^-.2) = .5981, mean .4557; with .4421: .4489."""
    loss = info_nce(QUERIES, DOCUMENTS, temperature=1.0, symmetric=True)
    assert loss.item() == pytest.approx(0.448879, abs=1e-6)


def test_hard_negatives_join_the_sum_of_every_query_but_not_the_other_direction() -> None:
    """(0, 1) adds logits 0 and 1: log(1 + e^-.4 + e^-1) = .7121, log(1 + e^-.8 + e^.2) = .9824, mean .8472."""
    documents = torch.cat([DOCUMENTS, torch.tensor([[0.0, 1.0]])])
    assert info_nce(QUERIES, documents, temperature=1.0).item() == pytest.approx(0.847210, abs=1e-6)
    both = info_nce(QUERIES, documents, temperature=1.0, symmetric=True)
    assert both.item() == pytest.approx((0.847210 + 0.455701) / 2, abs=1e-6)


def test_excluded_pairs_leave_the_sums_of_both_directions() -> None:
    """Without query 0 and document 1: rows 0 and .3711, columns .3133 and 0."""
    excluded = torch.tensor([[False, True], [False, False]])
    one = info_nce(QUERIES, DOCUMENTS, temperature=1.0, excluded=excluded)
    both = info_nce(QUERIES, DOCUMENTS, temperature=1.0, excluded=excluded, symmetric=True)
    assert one.item() == pytest.approx(0.371101 / 2, abs=1e-6)
    assert both.item() == pytest.approx((0.371101 + 0.313262) / 4, abs=1e-6)


def test_a_learned_temperature_gets_the_gradient_of_a_finite_difference() -> None:
    queries, documents = unit_rows(4, 6, 0), unit_rows(7, 6, 1)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    info_nce(queries, documents, temperature=temperature).backward()  # type: ignore[no-untyped-call]  # torch's
    step = 1e-6
    above = info_nce(queries, documents, temperature=0.3 + step)
    below = info_nce(queries, documents, temperature=0.3 - step)
    assert temperature.grad is not None
    assert temperature.grad.item() == pytest.approx((above - below).item() / (2 * step), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), batch=st.integers(1, 5), extra=st.integers(0, 6))
def test_the_order_of_hard_negatives_does_not_matter(seed: int, batch: int, extra: int) -> None:
    queries, documents = unit_rows(batch, 4, seed), unit_rows(batch + extra, 4, seed + 1)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.arange(batch), batch + torch.randperm(extra, generator=generator)])
    plain = info_nce(queries, documents, temperature=0.1)
    shuffled = info_nce(queries, documents[order], temperature=0.1)
    assert shuffled.item() == pytest.approx(plain.item(), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), batch=st.integers(1, 5), extra=st.integers(1, 6))
def test_excluding_a_negative_everywhere_is_leaving_it_out(seed: int, batch: int, extra: int) -> None:
    queries, documents = unit_rows(batch, 4, seed), unit_rows(batch + extra, 4, seed + 1)
    excluded = torch.zeros(batch, batch + extra, dtype=torch.bool)
    excluded[:, -1] = True
    masked = info_nce(queries, documents, temperature=0.1, excluded=excluded)
    assert masked.item() == pytest.approx(
        info_nce(queries, documents[:-1], temperature=0.1).item(), abs=1e-12
    )


def test_simcse_is_info_nce_of_two_encodings() -> None:
    """At .5 the example of InfoNCE above."""
    assert simcse(QUERIES, DOCUMENTS, temperature=0.5).item() == pytest.approx(0.277501, abs=1e-6)
    expected = (math.log1p(math.exp(-0.4 / 0.05)) + math.log1p(math.exp(-0.8 / 0.05))) / 2
    assert simcse(QUERIES, DOCUMENTS).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("margin", "relative", "expected"),
    [
        (0.0, False, [[0, 0, 1], [0, 0, 0]]),  # above .8 and above .5: only .9
        (0.1, False, [[0, 1, 1], [0, 0, 1]]),  # above .7 and .4
        (0.1, True, [[0, 1, 1], [0, 0, 1]]),  # above .72 and .45
        (0.07, True, [[0, 1, 1], [0, 0, 1]]),  # above .744 and .465
        (0.05, True, [[0, 0, 1], [0, 0, 1]]),  # above .76 and .475
        (-0.15, False, [[0, 0, 0], [0, 0, 0]]),  # above .95 and .65
    ],
)
def test_false_negatives_are_those_nearer_than_the_positive_less_a_margin(
    margin: float, relative: bool, expected: list[list[int]]
) -> None:
    similarities = torch.tensor([[0.8, 0.75, 0.9], [0.2, 0.5, 0.5]])
    marked = false_negatives(similarities, margin=margin, relative=relative)
    assert marked.int().tolist() == expected


def test_false_negatives_never_mark_a_positive() -> None:
    similarities = torch.tensor([[-0.5, -0.9], [-0.9, -0.5]])
    assert not false_negatives(similarities, margin=0.2).diagonal().any()
    assert not false_negatives(similarities, margin=0.2, relative=True).diagonal().any()


def test_errors_name_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"1 documents for 2 queries; .* at least 2 rows are needed"):
        info_nce(QUERIES, DOCUMENTS[:1], temperature=1.0)
    with pytest.raises(ValueError, match=r"documents has shape \(2, 3\); it needs \(N, 2\)"):
        info_nce(QUERIES, torch.zeros(2, 3), temperature=1.0)
    with pytest.raises(ValueError, match=r"queries has shape \(0, 2\); it needs \(B, E\)"):
        info_nce(QUERIES[:0], DOCUMENTS, temperature=1.0)
    with pytest.raises(ValueError, match=r"temperature is -1\.0; it must be a finite number above 0"):
        info_nce(QUERIES, DOCUMENTS, temperature=-1.0)
    with pytest.raises(ValueError, match=r"temperature has shape \(1,\); it needs \(\)"):
        info_nce(QUERIES, DOCUMENTS, temperature=torch.ones(1))
    with pytest.raises(ValueError, match=r"excluded has shape \(1, 2\); it needs \(2, 2\)"):
        info_nce(QUERIES, DOCUMENTS, temperature=1.0, excluded=torch.zeros(1, 2, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"excluded is torch\.float32; it needs torch\.bool"):
        info_nce(QUERIES, DOCUMENTS, temperature=1.0, excluded=torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"second has shape \(1, 2\); it needs \(2, 2\)"):
        simcse(QUERIES, DOCUMENTS[:1])
    with pytest.raises(ValueError, match=r"similarities of 3 queries to 2 documents; .* at least 3 columns"):
        false_negatives(torch.zeros(3, 2))
