"""Calls on several threads that are over when the caller goes on, whatever ends them: C code may work in the caller's memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor  # takes 10 ms to import

STEP_SECONDS = 0.1
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _Calls(Generic[_Result]):
    """Calls that threads make, by number, and what became of them.

    The caller waits for none of a future's locks: Ctrl-C that comes just after it has taken one leaves it locked, and then the thread
    waits for ever. A queue in C has no such moment.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.dropped = False
        self._results: dict[int, _Result] = {}
        self._errors: dict[int, BaseException] = {}
        self._ended: SimpleQueue[None] = SimpleQueue()

    def submit(self, pool: ThreadPoolExecutor, call: Callable[[], _Result]) -> None:
        """Have a call made, of the number `begun`, unless all are dropped by then."""
        pool.submit(self._make, self.begun, call)
        self.begun += 1

    def _make(self, number: int, call: Callable[[], _Result]) -> None:
        try:
            if self.dropped:
                raise RuntimeError("dropped before it began")
            self._results[number] = call()
        except BaseException as exc:
            self._errors[number] = exc
        finally:
            self._ended.put(None)

    def wait(self, number: int) -> None:
        """Wait in steps: Python overlooks a signal that arrives just before a thread blocks."""
        while number not in self._results and number not in self._errors:
            with suppress(Empty):
                self._ended.get(timeout=STEP_SECONDS)

    def result(self, number: int) -> _Result:
        """Return what a call that has ended returned, or raise what it raised; both are forgotten."""
        if number in self._errors:
            raise self._errors.pop(number)
        return self._results.pop(number)


def on_threads(
    pool: ThreadPoolExecutor,
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    stop: Callable[[], object] = lambda: None,
    keep: object = None,
) -> Generator[_Result, None, None]:
    """Yield `work(item)` for each item, in order, computed on the pool's threads.

    No call runs on after this has ended, however it ends: an exception in a call or in the caller, Ctrl-C (also a second
    one), an iterator that is closed. Calls that have not begun are dropped, `stop` tells those under way to end soon, and
    they are waited for. `keep` is what they know by its address alone: every call holds it until it returns.
    """
    calls: _Calls[_Result] = _Calls()
    done = 0
    try:
        for item in items:
            calls.submit(pool, partial(_call, work, stop, keep, item))
        while done < calls.begun:
            calls.wait(done)
            done += 1
            yield calls.result(done - 1)
    finally:
        interrupted = False
        while True:
            try:
                calls.dropped = True
                stop()
                while done < calls.begun:
                    calls.wait(done)
                    done += 1
                break
            except KeyboardInterrupt:
                interrupted = True
        if interrupted:
            raise KeyboardInterrupt


def interruptibly(work: Callable[[], _Result]) -> _Result:
    """Call what computes in C for long, deaf to signals. Ctrl-C leaves it behind, in memory of its own."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    calls: _Calls[_Result] = _Calls()
    try:
        calls.submit(pool, work)
        calls.wait(0)
        return calls.result(0)
    finally:
        pool.shutdown(wait=False)


def _call(work: Callable[[_Item], _Result], stop: Callable[[], object], keep: object, item: _Item) -> _Result:
    try:
        return work(item)
    except BaseException:
        stop()  # the other calls, too: their results will not be used
        raise


def taken(items: deque[_Item]) -> Iterator[_Item]:
    """Take items until there are none left; of several threads that do so, each gets its own. `items.clear` stops them."""
    with suppress(IndexError):
        while True:
            yield items.popleft()
