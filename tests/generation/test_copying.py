from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.generation.copying import is_copy, longest_run, words_of

PASSAGE = "Beyoncé rose to fame in the late 1990s as lead singer of Destiny's Child, one of the best-selling girl groups."


@pytest.mark.parametrize(
    ("output", "copied"),
    [
        ("beyoncé rose to fame in the late 1990s", True),  # a piece of the passage
        ("Rose to fame, in the late 1990s!", True),  # case and punctuation do not count
        (
            "who rose to fame in the late 1990s",
            False,
        ),  # 7 of 8 words in a row: a question that people would write
        ("who rose to fame in the late 1990s as lead singer", True),  # 10 of 11
        ("when did beyoncé rose to fame in the late 1990s and why so", False),  # 8 of 13
        ("when did beyoncé rise to fame?", False),
        ("destiny's child", False),  # a name, not a sentence
        ("", False),
    ],
)
def test_copies_are_told_from_questions(output: str, copied: bool) -> None:
    assert is_copy(output, PASSAGE) == copied


def test_runs_by_hand() -> None:
    assert longest_run(["a", "b", "c", "d"], ["x", "b", "c", "y"]) == 2
    assert longest_run(["a", "b"], ["b", "a"]) == 1
    assert longest_run([], ["a"]) == 0
    assert words_of("It's 2,000 — ok") == ["it", "s", "2", "000", "ok"]


@given(st.text("ab ", max_size=15), st.text("ab ", max_size=15))
def test_the_longest_run_equals_its_slow_twin(one: str, other: str) -> None:
    first, second = one.split(), other.split()
    pieces = {tuple(second[i:j]) for i in range(len(second)) for j in range(i + 1, len(second) + 1)}
    wanted = max(
        (
            j - i
            for i in range(len(first))
            for j in range(i + 1, len(first) + 1)
            if tuple(first[i:j]) in pieces
        ),
        default=0,
    )
    assert longest_run(first, second) == wanted
