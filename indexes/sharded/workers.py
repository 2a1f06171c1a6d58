"""Threads that search shards at once, of which a search can give up one that hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Key = TypeVar("Key")
Found = TypeVar("Found")
Task = tuple["Future[object]", Callable[[], object]]


@dataclass
class Gathered(Generic[Key, Found]):
    """What came back of work that was handed out, in the order in which it was: results, errors, and what took too long."""

    results: dict[Key, Found] = field(default_factory=dict)
    errors: dict[Key, Exception] = field(default_factory=dict)
    late: dict[Key, Future[Found]] = field(default_factory=dict)


class Workers:
    """At most `most` threads; whoever waits for them waits no longer than it says.

    The threads of `concurrent.futures` would keep the process alive until the last of them ends, which one that waits for a dead disk
    never does.
    """

    def __init__(self, most: int) -> None:
        self._most, self._threads = most, 0
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._given_up: set[Future[object]] = set()

    def gather(self, work: Mapping[Key, Callable[[], Found]], seconds: float | None) -> Gathered[Key, Found]:
        """Do pieces of work at once and wait for all, up to so many seconds together; one alone is done here where it may take its time."""
        gathered: Gathered[Key, Found] = Gathered()
        if len(work) == 1 and seconds is None:
            ((key, alone),) = work.items()
            try:
                gathered.results[key] = alone()
            except Exception as exc:  # whoever asked decides which errors are a shard's
                gathered.errors[key] = exc
            return gathered
        futures = {key: self._submit(each) for key, each in work.items()}
        ends = None if seconds is None else time.monotonic() + seconds
        for key, future in futures.items():
            try:
                left = None if ends is None else max(0.0, ends - time.monotonic())
                gathered.results[key] = future.result(left)
            except FutureTimeoutError as exc:
                if future.done():  # the work itself raised it
                    gathered.errors[key] = exc
                    continue
                if not future.cancel():
                    self._give_up(future)
                gathered.late[key] = future
            except CancelledError as exc:
                gathered.errors[key] = RuntimeError(str(exc))
            except Exception as exc:
                gathered.errors[key] = exc
        return gathered

    def _give_up(self, future: Future[Found]) -> None:
        """Let another thread take the place of the one that does this; it ends if it ever comes back."""
        self._threads -= 1
        self._given_up.add(future)  # type: ignore[arg-type]  # by identity

    def _submit(self, work: Callable[[], Found]) -> Future[Found]:
        future: Future[Found] = Future()
        self._tasks.put((future, work))  # type: ignore[arg-type]  # a thread sets what its own work returns
        if self._threads < self._most:
            self._threads += 1
            Thread(target=_work, args=(self._tasks, self._given_up), name="shards", daemon=True).start()
        return future

    def close(self) -> None:
        """End the threads once they are done."""
        for _ in range(self._threads):
            self._tasks.put(None)
        self._threads = 0


def _work(tasks: SimpleQueue[Task | None], given_up: set[Future[object]]) -> None:
    while (task := tasks.get()) is not None:
        future, work = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(work())
        except BaseException as exc:  # whoever waits gets it
            future.set_exception(exc)
        if future in given_up:
            given_up.discard(future)
            return
