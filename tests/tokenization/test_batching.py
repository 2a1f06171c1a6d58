"""Sequences in batches, longest first, and what is made one step ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.tokenization.batching import micro_batches, one_ahead, padded_batches


def test_micro_batches_keep_within_the_budget_longest_first() -> None:
    """Lengths 5, 9, 2, 4 and a budget of 8: 9 stands alone, then 5, then 4 and 2."""
    found = [part.tolist() for part in micro_batches(np.array([5, 9, 2, 4]), 8)]
    assert found == [[1], [0], [3, 2]]


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 60))
def test_every_sequence_is_in_one_micro_batch(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    parts = list(micro_batches(sizes, budget))
    assert sorted(row for part in parts for row in part.tolist()) == list(range(len(lengths)))
    assert all(len(part) == 1 or sizes[part].sum() <= budget for part in parts)


def test_padded_batches_keep_within_the_budget_if_padded() -> None:
    """Lengths 5, 9, 2, 4 and a budget of 9: 9, then 5, of which two would be 10, then 4 and 2 in 2 · 4."""
    assert [part.tolist() for part in padded_batches(np.array([5, 9, 2, 4]), 9)] == [[1], [0], [3, 2]]
    assert [part.tolist() for part in padded_batches(np.array([5, 9, 2, 4]), 10)] == [[1], [0, 3], [2]]


def test_one_item_is_made_ahead_and_no_more() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(5):
            read.append(number)
            yield number

    seen = []
    for square in one_ahead(lambda number: number * number, numbers()):
        seen.append((square, len(read)))
    assert seen == [(0, 2), (1, 3), (4, 4), (9, 5), (16, 5)]
    assert list(one_ahead(str, [])) == []


def test_what_making_an_item_raises_comes_in_its_place() -> None:
    found = one_ahead(lambda number: 6 // number, [3, 2, 0, 1])
    assert [next(found), next(found)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_a_single_item_is_made_without_a_thread() -> None:
    """One item, as the query of a search, is made by the caller; of two the second is made elsewhere."""
    own = threading.current_thread().name

    def maker(_: int) -> str:
        return threading.current_thread().name

    assert list(one_ahead(maker, [1])) == [own]
    first, second = one_ahead(maker, [1, 2])
    assert first == own != second
