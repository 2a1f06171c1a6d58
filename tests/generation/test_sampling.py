"""Drawing tokens: by hand, in the right proportions, the same for the same seed, whatever else is in the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from embedkit.generation.decoding_rules import DecodingRules
from embedkit.generation.options import GenerationOptions
from embedkit.generation.sampling import decode_rows, draw
from tests.generation.fakes import END, Chain

HALVES = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def drawn(uniform: float, **options: float | int) -> int:
    return int(draw(HALVES[None], torch.tensor([uniform]), **options)[0])  # type: ignore[arg-type] # a test names them


def test_a_number_points_at_a_token_by_falling_probability() -> None:
    """.5, .3, .15 and .05 laid end to end: .79 is in the second, .81 in the third."""
    assert [drawn(number) for number in (0.0, 0.49, 0.51, 0.79, 0.81, 0.96, 0.999999)] == [
        0,
        0,
        1,
        1,
        2,
        3,
        3,
    ]
    order = torch.tensor([3, 0, 2, 1])  # which token has which probability does not matter
    assert int(draw(HALVES[order][None], torch.tensor([0.6]))[0]) == 3


def test_top_k_and_top_p_cut_the_tail_and_share_it_out() -> None:
    """Of the two likeliest .5 and .3 become .625 and .375."""
    assert [drawn(number, top_k=2) for number in (0.62, 0.63, 0.99)] == [0, 1, 1]
    # .5 and .3 make up .8 = top_p; above it the third is needed.
    assert [drawn(0.999, top_p=share) for share in (0.5, 0.51, 0.79, 0.81, 1.0)] == [0, 1, 1, 2, 3]
    assert drawn(0.999, top_p=0.01) == 0  # one token is always left


def test_a_temperature_sharpens_or_flattens() -> None:
    """At 1/2 probabilities are squared: .25, .09, .0225, .0025 of .365, so that the first has .685."""
    assert [drawn(number, temperature=0.5) for number in (0.68, 0.69)] == [0, 1]
    flat = [drawn(number, temperature=1e6) for number in (0.24, 0.26, 0.51, 0.76)]
    assert flat == [0, 1, 2, 3]


def test_draws_come_in_the_proportions_of_their_probabilities() -> None:
    """10,000 draws: each count within four deviations of what is expected."""
    count = 10_000
    uniforms = torch.from_numpy(np.random.default_rng(0).random(count))
    found = torch.bincount(draw(HALVES.expand(count, 4), uniforms, top_p=0.9), minlength=4) / count
    wanted = torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95
    deviations = (wanted * (1 - wanted) / count).sqrt()
    assert ((found - wanted).abs() <= 4 * deviations).all()
    assert found[3] == 0


def test_a_forbidden_token_is_never_drawn() -> None:
    logits = torch.tensor([[1.0, -torch.inf, -torch.inf]]).expand(50, 3)
    uniforms = torch.linspace(0, 0.999999, 50)
    assert draw(logits, uniforms).tolist() == [0] * 50
    assert draw(logits, uniforms, top_k=2).tolist() == [0] * 50


def texts(prompts: list[list[int]], options: GenerationOptions, numbers: list[int] | None = None) -> list[list[tuple[int, ...]]]:  # fmt: skip
    table = torch.randn(8, 8, generator=torch.Generator().manual_seed(3))
    found = decode_rows(Chain(table, prompts), prompts, DecodingRules(END), options, numbers=numbers)
    return [[each.tokens for each in own] for own in found]


SAMPLE = GenerationOptions(method="sample", num_outputs=4, max_new_tokens=12)


def test_the_same_seed_draws_the_same_and_another_one_others() -> None:
    assert texts([[1], [2]], SAMPLE) == texts([[1], [2]], SAMPLE)
    other = GenerationOptions(method="sample", num_outputs=4, max_new_tokens=12, seed=1)
    assert texts([[1], [2]], SAMPLE) != texts([[1], [2]], other)
    (outputs,) = texts([[1]], SAMPLE)
    assert len(set(outputs)) > 1


def test_what_is_drawn_depends_on_the_place_in_the_input_alone() -> None:
    together = texts([[1], [2], [1]], SAMPLE)
    assert texts([[1]], SAMPLE, [2]) == together[2:]
    assert texts([[2]], SAMPLE, [1]) == together[1:2]
    assert together[0] != together[2]  # the same prompt at another place


def test_greed_takes_the_likeliest_and_its_score_is_their_mean_log_likelihood() -> None:
    table = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]]).log()
    options = GenerationOptions(method="greedy", max_new_tokens=5)
    ((found,),) = decode_rows(Chain(table, [[1]]), [[1]], DecodingRules(END), options)
    assert (found.tokens, found.finished) == ((1, 2, 0), True)
    assert found.score == pytest.approx((math.log(0.7) + math.log(0.8)) / 2)


def test_an_output_stops_at_the_longest_length_and_not_before_the_shortest() -> None:
    table = torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log()
    options = GenerationOptions(method="greedy", max_new_tokens=5, min_new_tokens=3)
    rules = DecodingRules(END, min_new_tokens=3)
    ((found,),) = decode_rows(Chain(table, [[1]]), [[1]], rules, options)
    assert found.tokens == (1, 1, 1, 1, 0)
    options = GenerationOptions(method="greedy", max_new_tokens=2, min_new_tokens=2)
    ((found,),) = decode_rows(Chain(table, [[1]]), [[1]], DecodingRules(END, min_new_tokens=9), options)
    assert (found.tokens, found.finished) == ((1, 1, 1), False)
