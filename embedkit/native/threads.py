"""Calls on several threads that are over when the caller goes on, whatever ends them: C code may work in the caller's memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor  # takes 10 ms to import

STEP_SECONDS = 0.1
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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
    call = partial(_call, work, stop, keep)
    futures: deque[Future[_Result]] = deque()
    try:
        for item in items:
            futures.append(pool.submit(call, item))
        while futures:
            _wait(futures[0])
            yield futures.popleft().result()
    finally:
        interrupted = False
        while True:
            try:
                for future in futures:
                    future.cancel()
                stop()
                for future in futures:
                    if not future.cancelled():
                        _wait(future)
                break
            except KeyboardInterrupt:
                interrupted = True
        if interrupted:
            raise KeyboardInterrupt


def interruptibly(work: Callable[[], _Result]) -> _Result:
    """Call what computes in C for long, deaf to signals. Ctrl-C leaves it behind, in memory of its own."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    try:
        call = pool.submit(work)
        _wait(call)
        return call.result()
    finally:
        pool.shutdown(wait=False)


def _call(work: Callable[[_Item], _Result], stop: Callable[[], object], keep: object, item: _Item) -> _Result:
    try:
        return work(item)
    except BaseException:
        stop()  # the other calls, too: their results will not be used
        raise


def _wait(call: Future[_Result]) -> None:
    """Wait in steps: Python overlooks a signal that arrives just before a thread blocks."""
    while True:
        with suppress(TimeoutError):
            call.exception(STEP_SECONDS)
            return


def taken(items: deque[_Item]) -> Iterator[_Item]:
    """Take items until there are none left; of several threads that do so, each gets its own. `items.clear` stops them."""
    with suppress(IndexError):
        while True:
            yield items.popleft()
