"""Drawing from an iterator in a thread, a few items ahead of what uses them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

_T = TypeVar("_T")
_READ_AHEAD = 4


def read_ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Draw items in a thread, a few ahead; what it raises is raised here, in its place."""
    line: queue.Queue[tuple[str, _T | BaseException | None]] = queue.Queue(_READ_AHEAD)
    stopped = threading.Event()

    def put(kind: str, value: _T | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                line.put((kind, value), timeout=0.1)
            except queue.Full:
                continue
            return

    def read() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as exc:
            put("error", exc)

    thread = threading.Thread(target=read, name="read", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = line.get()
            if kind == "end":
                return
            if isinstance(value, BaseException):
                raise value
            yield value  # type: ignore[misc]  # an item, since it is no error and not the end
    finally:
        stopped.set()
        thread.join(1.0)  # no longer: it may wait for a pipe that has fallen silent
