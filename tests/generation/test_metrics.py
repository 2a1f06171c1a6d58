"""BLEU, chrF and ROUGE by hand; beside the packages that define them: tests/parity/test_generation_parity.py."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.generation.metrics import (
    bleu,
    bleu_words,
    chrf,
    longest_common_subsequence,
    rouge,
    rouge_words,
)


def test_bleu_by_hand() -> None:
    """ "the cat sat on a mat" against "the cat sat on the mat": 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 fours.

    As long as the reference, so 100 · (5/6 · 3/5 · 2/4 · 1/3) ** (1/4) = 53.73.
    """
    found = bleu(["the cat sat on a mat"], [["the cat sat on the mat"]])
    assert found == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_bleu_smooths_what_never_matches_and_counts_no_word_more_often_than_a_reference_has_it() -> None:
    """ "the the the the" has 2 of 4 words in "the cat the mat"; pairs, triples and fours match nowhere: 1/(2·3), 1/(4·2), 1/(8·1)."""
    found = bleu(["the the the the"], [["the cat the mat"]])
    assert found == pytest.approx(100 * (2 / 4 * 1 / 6 * 1 / 8 * 1 / 8) ** 0.25)
    assert bleu(["nothing alike in here"], [["some other words altogether"]]) == 0


def test_bleu_is_brief_where_the_output_is() -> None:
    """5 words against 6, all of them right: e ** (1 - 6/5). A reference of 5 words more would not be brief."""
    output, long, right = "a b c d e", "a b c d e f", "a b c d e"
    assert bleu([output], [[long]]) == pytest.approx(100 * math.exp(1 - 6 / 5))
    assert bleu([output], [[long, right]]) == pytest.approx(100)


def test_words_of_bleu_stand_apart_from_signs_but_within_numbers() -> None:
    assert bleu_words('He paid 3,500.25 &amp; left (in 12-13).') == [
        *("He", "paid", "3,500.25", "&", "left", "(", "in", "12", "-", "13", ")", "."),
    ]  # fmt: skip


def test_chrf_by_hand() -> None:
    """ "ab" against "abc": of single characters 2 of 2 and 2 of 3, of pairs 1 of 1 and 1 of 2; longer ones stand in one text at most.

    Precision 1, recall (2/3 + 1/2) / 2 = 7/12: 5 · 7/12 / (4 + 7/12) = .6364. Spaces do not count.
    """
    assert chrf(["ab"], [["abc"]]) == pytest.approx(100 * 5 * (7 / 12) / (4 + 7 / 12))
    assert chrf(["a b"], [["a bc"]]) == chrf(["ab"], [["abc"]])
    assert chrf(["xy"], [["abc"]]) == chrf([""], [["abc"]]) == 0


def test_rouge_by_hand() -> None:
    """ "the cat sat" against "The cat, it sat!": 3 of 3 and of 4 words, 1 of 2 and of 3 pairs, a subsequence of 3."""
    found = rouge("the cat sat", ["The cat, it sat!"])
    assert found == {
        "rouge1": pytest.approx(6 / 7),
        "rouge2": pytest.approx(2 / 5),
        "rougeL": pytest.approx(6 / 7),
    }
    assert rouge("a dog", ["a cat", "a dog"])["rouge2"] == 1  # the nearest reference counts
    assert rouge("", ["a cat"]) == {"rouge1": 0, "rouge2": 0, "rougeL": 0}
    assert rouge_words("The U.S.  (in 2,000)") == ["the", "u", "s", "in", "2", "000"]


def slow_subsequence(one: str, other: str) -> int:
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return 1 + slow_subsequence(one[:-1], other[:-1])
    return max(slow_subsequence(one[:-1], other), slow_subsequence(one, other[:-1]))


@given(st.text("abc", max_size=7), st.text("abcd", max_size=7))
def test_the_longest_common_subsequence_equals_its_slow_twin(one: str, other: str) -> None:
    assert longest_common_subsequence(list(one), list(other)) == slow_subsequence(one, other)
