"""Losses that learn from a teacher."""

import math

import pytest
import torch

from embedkit.training.losses import (
    cosine_distance,
    embedding_mse,
    kl_distillation,
    kl_of_margins,
    margin_mse,
    similarity_distillation,
)

TEACHER = torch.tensor([[math.log(3), 0.0]])


def test_embedding_mse_is_a_mean_over_rows_and_dimensions() -> None:
    """(1 - 0)² and (2 - 4)²: 5 / 2."""
    assert embedding_mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])).item() == 2.5


def test_margin_mse_compares_margins() -> None:
    """Margins 3 - 1 = 2 and 3 - 2 = 1 against 4 and 1: 4 / 2."""
    loss = margin_mse(torch.tensor([3.0]), torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 1.0]]))
    assert loss.item() == 2.0


def test_margin_mse_leaves_out_what_is_no_negative() -> None:
    """The margin 2 against 4 alone: 4."""
    mask = torch.tensor([[True, False]])
    loss = margin_mse(torch.tensor([3.0]), torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 99.0]]), mask=mask)
    assert loss.item() == 4.0


def test_cosine_distance_minds_no_length() -> None:
    """One vector along the teacher's, one across: (0 + 1) / 2."""
    teacher = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert cosine_distance(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), teacher).item() == pytest.approx(0.5)


def test_similarity_distillation_compares_distributions_over_the_bank() -> None:
    """The teacher's cosines (1, 0) at temperature 1 / log 3 give (3/4, 1/4); the student's are equal: (1/2, 1/2)."""
    bank, teacher = torch.tensor([[5.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0]])
    loss = similarity_distillation(torch.ones(1, 2), teacher, bank, temperature=1 / math.log(3))
    assert loss.item() == pytest.approx(0.130812, abs=1e-6)
    assert similarity_distillation(2 * teacher, teacher, bank).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match=r"bank has shape \(2, 1\); it needs \(M, 2\)"):
        similarity_distillation(torch.ones(1, 2), teacher, bank[:, :1])


def test_kl_of_margins_is_that_of_scores_that_have_these_margins() -> None:
    """A margin of log 3 is what a teacher of (3/4, 1/4) has; the third candidate is none."""
    margins = torch.tensor([[math.log(3), math.nan]])
    loss = kl_of_margins(torch.zeros(1), torch.tensor([[0.0, 9.0]]), margins)
    assert loss.item() == pytest.approx(0.130812, abs=1e-6)
    with pytest.raises(
        ValueError, match=r"kl_of_margins: teacher_margins has shape \(1, 1\); it needs \(1, 2\)"
    ):
        kl_of_margins(torch.zeros(1), torch.zeros(1, 2), torch.zeros(1, 1))


def test_kl_distillation_is_the_divergence_from_the_teacher() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): .75 log 1.5 + .25 log .5 = .1308."""
    assert kl_distillation(torch.zeros(1, 2), TEACHER).item() == pytest.approx(0.130812, abs=1e-6)


def test_kl_distillation_scales_with_the_temperature_squared() -> None:
    """At 2 the teacher is (.6340, .3660): .6340 log 1.2679 + .3660 log .7321 = .03634, times 4 = .1454."""
    loss = kl_distillation(torch.zeros(1, 2), TEACHER, temperature=2.0)
    assert loss.item() == pytest.approx(0.145366, abs=1e-5)


def test_kl_distillation_is_zero_for_the_teacher_itself_up_to_a_constant() -> None:
    assert kl_distillation(TEACHER + 5, TEACHER).item() == pytest.approx(0.0, abs=1e-6)


def test_kl_distillation_leaves_padding_out_of_value_and_gradient() -> None:
    scores = torch.tensor([[0.0, 0.0, 9.0]], requires_grad=True)
    padded_teacher = torch.tensor([[math.log(3), 0.0, 50.0]])
    loss = kl_distillation(scores, padded_teacher, mask=torch.tensor([[True, True, False]]))
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    assert loss.item() == pytest.approx(0.130812, abs=1e-6)
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.tensor([[-0.25, 0.25, 0.0]]))  # q - p


def test_a_teacher_gets_no_gradient() -> None:
    teacher = TEACHER.clone().requires_grad_()
    student = torch.zeros(1, 2, requires_grad=True)
    total = kl_distillation(student, teacher) + embedding_mse(student, teacher)
    total = total + margin_mse(student[:, 0], student, teacher)
    total.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    assert teacher.grad is None
    assert student.grad is not None


def test_errors_name_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"teacher_embeddings has shape \(2, 8\); it needs \(2, 4\).*PCA"):
        embedding_mse(torch.zeros(2, 4), torch.zeros(2, 8))
    with pytest.raises(ValueError, match=r"negative_scores has shape \(2, 1\); it needs \(3, N\)"):
        margin_mse(torch.zeros(3), torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"teacher_margins has shape \(3, 2\); it needs \(3, 1\)"):
        margin_mse(torch.zeros(3), torch.zeros(3, 1), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"teacher_scores has shape \(1, 2\); it needs \(1, 3\)"):
        kl_distillation(torch.zeros(1, 3), TEACHER)
    with pytest.raises(ValueError, match=r"kl_distillation: 1 candidate a query; .* give at least 2"):
        kl_distillation(torch.zeros(3, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"temperature is 0; it must be"):
        kl_distillation(torch.zeros(1, 2), TEACHER, temperature=0)
    with pytest.raises(
        TypeError, match=r"mask is torch\.float32; it needs torch\.bool, True for a real candidate"
    ):
        kl_distillation(torch.zeros(1, 2), TEACHER, mask=torch.ones(1, 2))
