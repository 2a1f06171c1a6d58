"""Drawing from an iterator in a thread, a few items ahead of what uses them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def read_ahead(items: Iterator[_T], size: Callable[[_T], float], *, room: float) -> Iterator[_T]:
    """Draw items in a thread, the next one while those that wait are smaller than `room` together.

    What drawing raises is raised here, in its place.
    """
    waiting: deque[tuple[_T, float]] = deque()
    ends: list[BaseException | None] = []  # what the items ended with
    changed = threading.Condition()
    stopped = threading.Event()

    def has_room() -> bool:
        with changed:
            changed.wait_for(lambda: stopped.is_set() or sum(taken for _, taken in waiting) < room)
        return not stopped.is_set()

    def read() -> None:
        end: BaseException | None = None
        try:
            while has_room():
                item = next(items)
                with changed:
                    waiting.append((item, size(item)))
                    changed.notify_all()
        except StopIteration:
            pass
        except BaseException as exc:
            end = exc
        with changed:
            ends.append(end)
            changed.notify_all()

    thread = threading.Thread(target=read, name="read", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: waiting or ends)
                if not waiting:
                    break
                item, _ = waiting.popleft()
                changed.notify_all()
            yield item
        if ends[0] is not None:
            raise ends[0]
    finally:
        with changed:
            stopped.set()
            changed.notify_all()
        thread.join(1.0)  # no longer: it may wait for a pipe that has fallen silent
