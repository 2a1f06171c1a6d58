"""Beam search: by hand, beside every text that there is, and where the limits are."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.generation.beam_search import beam_search
from embedkit.generation.decoding_rules import DecodingRules
from embedkit.generation.stepping import Hypothesis
from tests.generation.fakes import END, Chain

RULES = DecodingRules(END)


def search(table: torch.Tensor, prompts: list[list[int]], **options: object) -> list[list[Hypothesis]]:
    return beam_search(Chain(table, prompts), prompts, RULES, **options)  # type: ignore[arg-type] # a test names them


def logs(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows).clamp(min=1e-9).log()


def test_two_beams_find_what_greed_misses() -> None:
    """After 1: token 2 at .6, token 3 at .4. After 2 the text ends at .55, or 2 again; after 3 it ends at .99.

    Greedily 1 2 end is worth .6 · .55 = .33; 1 3 end is worth .4 · .99 = .396.
    """
    table = logs((1, 0, 0, 0), (0, 0, 0.6, 0.4), (0.55, 0, 0.45, 0), (0.99, 0, 0, 0.01))
    (greedy,) = search(table, [[1]], num_beams=1, max_new_tokens=2, length_penalty=0.0)
    assert greedy[0].tokens == (1, 2, 0)
    assert greedy[0].score == pytest.approx(math.log(0.33), abs=1e-5)
    (both,) = search(table, [[1]], num_beams=2, max_new_tokens=2, length_penalty=0.0)
    assert [each.tokens for each in both] == [(1, 3, 0), (1, 2, 0)]
    assert both[0].score == pytest.approx(math.log(0.396), abs=1e-5)


def test_a_length_penalty_prefers_longer_texts() -> None:
    """The end at once is worth .5, two tokens .5 · .6 = .3: per token ln .5 = -.693 against ln .3 / 2 = -.602."""
    table = logs((1, 0, 0), (0.5, 0, 0.5), (0.6, 0, 0.4))
    best = {
        penalty: search(table, [[1]], num_beams=2, max_new_tokens=2, length_penalty=penalty)[0][0]
        for penalty in (0.0, 1.0)
    }
    assert (best[0.0].tokens, best[1.0].tokens) == ((1, 0), (1, 2, 0))
    assert best[1.0].score == pytest.approx(math.log(0.3) / 2, abs=1e-5)


def test_what_reaches_the_limit_is_not_finished() -> None:
    table = logs((1, 0, 0), (0.01, 0, 0.99), (0.01, 0, 0.99))
    (found,) = search(table, [[1]], num_beams=2, max_new_tokens=3)
    assert (found[0].tokens, found[0].finished) == ((1, 2, 2, 2), False)


def every_text(table: torch.Tensor, start: int, length: int) -> dict[tuple[int, ...], float]:
    """All texts of up to `length` new tokens with their log-probabilities; the longest need not end."""
    likelihoods = table.log_softmax(dim=1).tolist()
    found = {}
    others = [token for token in range(len(table)) if token != END]
    for size in range(1, length + 1):
        ends = range(len(table)) if size == length else [END]
        for body in itertools.product(others, repeat=size - 1):
            for last in ends:
                text = (start, *body, last)
                found[text] = sum(likelihoods[a][b] for a, b in itertools.pairwise(text))
    return found


@given(seed=st.integers(0, 999), length=st.integers(1, 4), penalty=st.sampled_from([0.0, 0.5]))
@settings(max_examples=30, deadline=None)
def test_with_a_beam_for_every_text_it_finds_the_best_of_all(seed: int, length: int, penalty: float) -> None:
    """27 beams of 4 tokens hold every beginning of 3 tokens that do not end."""
    table = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)) * 2
    (found,) = search(table, [[1]], num_beams=27, max_new_tokens=length, length_penalty=penalty)
    wanted = {
        text: total / (len(text) - 1) ** penalty for text, total in every_text(table, 1, length).items()
    }
    best = sorted(wanted.values(), reverse=True)[: min(3, len(found))]
    assert [each.score for each in found[: len(best)]] == pytest.approx(best, abs=1e-4)
    for each in found:
        assert each.score == pytest.approx(wanted[each.tokens], abs=1e-4)


@given(seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_texts_are_searched_apart(seed: int) -> None:
    table = torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)) * 2
    together = search(table, [[1], [2], [3]], num_beams=3, max_new_tokens=5)
    alone = [search(table, [[start]], num_beams=3, max_new_tokens=5)[0] for start in (1, 2, 3)]
    assert [[each.tokens for each in own] for own in together] == [
        [each.tokens for each in own] for own in alone
    ]


def test_a_vocabulary_smaller_than_the_beams_will_do() -> None:
    (found,) = search(logs((1, 0), (0.6, 0.4)), [[1]], num_beams=8, max_new_tokens=3, length_penalty=0.0)
    assert [each.tokens for each in found] == [(1, 0), (1, 1, 0), (1, 1, 1, 0), (1, 1, 1, 1)]
