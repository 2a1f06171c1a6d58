"""Threads that search shards: errors are kept apart, and what hangs is given up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Event

from indexes.sharded.workers import Workers


def fail() -> int:
    raise OSError("gone")


def test_results_errors_and_what_hangs_are_told_apart() -> None:
    """One thread hangs: its place is taken, so that the pieces behind it are done, and it comes back to nobody."""
    hanging, workers = Event(), Workers(1)
    work: dict[str, Callable[[], int]] = {
        "quick": lambda: 1,
        "bad": fail,
        "slow": lambda: int(hanging.wait()),
    }
    found = workers.gather(work, 0.2)
    assert found.results == {"quick": 1}
    assert list(found.errors) == ["bad"]
    assert list(found.late) == ["slow"]
    assert workers.gather({n: partial(int, n) for n in "123"}, 5.0).results == {"1": 1, "2": 2, "3": 3}
    hanging.set()
    assert found.late["slow"].result(5)
    workers.close()


def test_work_without_a_limit_is_waited_for() -> None:
    workers = Workers(3)
    assert workers.gather({n: partial(int, n) for n in "12"}, None).results == {"1": 1, "2": 2}
    assert workers.gather({"1": partial(int, "1")}, None).results == {"1": 1}
    assert list(workers.gather({"1": fail}, None).errors) == ["1"]
    workers.close()
