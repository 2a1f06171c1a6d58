"""Sequences on their way to a model: made one step ahead in a thread, and put into batches, longest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
T = TypeVar("T")
R = TypeVar("R")


def one_ahead(make: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `make` of each item in order; that of the next one runs in a thread while the caller uses this one.

    For a single item, such as the query of a search, no thread is started: that would take longer than all the rest.
    """
    rest = iter(items)
    made = [make(item) for item in islice(rest, 1)]
    following = list(islice(rest, 1))
    if following:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize") as thread:
            waiting = thread.submit(make, *following)
            yield from made
            for item in rest:
                next_one = thread.submit(make, item)
                yield waiting.result()
                waiting = next_one
            yield waiting.result()
    else:
        yield from made


def micro_batches(lengths: Ints, budget: int) -> Iterator[Ints]:
    """Cut sequences, longest first, into groups of at most `budget` tokens: their numbers, one group after another.

    A sequence longer than the budget stands alone.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    start = done = 0
    while start < len(order):
        stop = max(start + 1, int(np.searchsorted(ends, done + budget, side="right")))
        yield order[start:stop]
        start, done = stop, int(ends[stop - 1])


def padded_batches(lengths: Ints, budget: int) -> Iterator[Ints]:
    """Cut sequences as `micro_batches` does, so that they keep to the budget even if padded to the longest of a group."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + max(1, budget // int(lengths[order[start]]))
        yield order[start:stop]
        start = stop
