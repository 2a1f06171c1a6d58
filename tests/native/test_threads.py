"""Calls on threads are over when the caller goes on: C code never works in memory that is gone."""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from embedkit.native import threads
from embedkit.native.threads import interruptibly, on_threads, taken

LIBC = ctypes.CDLL(None)
SECONDS = 20.0  # what has not come by then does not come


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture
def interrupts(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException]]:
    """Exceptions that end the caller's waits at once, one each, as Ctrl-C does."""
    raised: list[type[BaseException]] = []
    wait = threads._Calls.wait

    def interrupted(calls: threads._Calls[Any], number: int) -> None:  # Any: whatever calls return
        if raised:
            raise raised.pop(0)
        wait(calls, number)

    monkeypatch.setattr(threads._Calls, "wait", interrupted)
    return raised


class InC:
    """A call that writes into its caller's array, in C, until `release`."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.begun = threading.Event()
        self.source, self.sink = os.pipe()

    def compute(self, pool: ThreadPoolExecutor, stop: Callable[[], None]) -> None:
        array = np.zeros(4, np.uint8)
        weakref.finalize(array, self.events.append, "freed")
        address = ctypes.c_void_p(array.ctypes.data)

        def work(_: int) -> None:
            self.begun.set()
            LIBC.read(self.source, address, 4)
            self.events.append("returned")

        def items() -> Iterator[int]:
            yield 0
            assert self.begun.wait(SECONDS)

        list(on_threads(pool, work, items(), stop=stop, keep=array))

    def release(self) -> None:
        self.events.append("released")
        os.write(self.sink, b"\xff" * 4)


@pytest.fixture
def in_c() -> Iterator[InC]:
    call = InC()
    yield call
    os.close(call.sink)
    os.close(call.source)


def test_ctrl_c_waits_for_c_code_in_the_callers_memory_however_often_it_comes(
    in_c: InC, interrupts: list[type[BaseException]]
) -> None:
    def stop() -> None:
        in_c.events.append("stopped")
        if in_c.events == ["stopped"] * 3:
            in_c.release()

    interrupts += [KeyboardInterrupt] * 3
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            in_c.compute(pool, stop)
        in_c.events.append("left")
    assert in_c.events[:5] == ["stopped", "stopped", "stopped", "released", "returned"]
    assert sorted(in_c.events[5:]) == ["freed", "left"]


def test_memory_outlives_c_code_even_where_the_caller_is_torn_away(
    in_c: InC, interrupts: list[type[BaseException]]
) -> None:
    """A signal handler that exits leaves nobody to wait."""
    interrupts += [KeyboardInterrupt, SystemExit]
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(SystemExit):
            in_c.compute(pool, lambda: None)
        in_c.events.append("left")
        in_c.release()
    assert in_c.events == ["left", "released", "returned", "freed"]


def test_a_caller_that_waits_takes_no_lock_that_ctrl_c_could_leave_locked(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come between a condition's lock and what frees it; the thread that needs it would wait for ever."""
    taken_by: list[str] = []
    enter = threading.Condition.__enter__
    release, caller = threading.Event(), threading.current_thread()

    def entered(condition: threading.Condition) -> bool:
        if release.is_set() and threading.current_thread() is caller:
            taken_by.append("the caller")
        return enter(condition)

    def items() -> Iterator[int]:
        yield from range(3)
        monkeypatch.setattr(threading.Condition, "__enter__", entered)
        release.set()

    def work(item: int) -> int:
        while not release.is_set():
            time.sleep(0.01)
        time.sleep(0.05)
        return item

    assert list(on_threads(pool, work, items())) == [0, 1, 2]
    assert taken_by == []
    calls = on_threads(pool, work, range(3))
    assert next(calls) == 0
    taken_by.clear()  # of the pool, which was given the calls
    calls.close()
    assert taken_by == []


def test_a_call_in_c_returns_or_raises(pool: ThreadPoolExecutor) -> None:
    assert interruptibly(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        interruptibly(lambda: 1 // 0)


def test_results_come_in_the_order_of_the_items(pool: ThreadPoolExecutor) -> None:
    assert list(on_threads(pool, lambda item: item * item, range(50))) == [n * n for n in range(50)]


def test_a_call_that_fails_stops_the_others_and_its_error_is_raised(pool: ThreadPoolExecutor) -> None:
    stop, ended = threading.Event(), []

    def work(item: int) -> None:
        if item:
            raise MemoryError("no room")
        ended.append(stop.wait(SECONDS))

    with pytest.raises(MemoryError, match="no room"):
        list(on_threads(pool, work, range(2), stop=stop.set))
    assert ended == [True]


def test_a_caller_that_stops_early_drops_what_has_not_begun(pool: ThreadPoolExecutor) -> None:
    stop, begun = threading.Event(), deque[int]()

    def work(item: int) -> int:
        begun.append(item)
        if item:
            stop.wait(SECONDS)
        return item

    calls = on_threads(pool, work, range(100), stop=stop.set)
    assert next(calls) == 0
    calls.close()
    assert stop.is_set()
    assert sorted(begun) == list(range(len(begun)))
    assert len(begun) <= 3  # the first, and one on each thread


def test_threads_take_every_item_once_and_none_after_a_stop(pool: ThreadPoolExecutor) -> None:
    items = deque(range(10_000))
    parts = list(on_threads(pool, lambda _: list(taken(items)), range(2)))
    assert sorted(parts[0] + parts[1]) == list(range(10_000))
    items.extend(range(3))
    rest = taken(items)
    assert next(rest) == 0
    items.clear()
    assert list(rest) == []
