"""Reading ahead: as far as there is room, with what goes wrong in its place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

import pytest

from indexes.maintenance.read_ahead import read_ahead


def wait_for(condition: object) -> None:
    """Wait until a thread has come so far, and then as long again, so that it could go further."""
    for _ in range(200):
        if condition():  # type: ignore[operator]  # a function
            break
        time.sleep(0.01)
    time.sleep(0.05)


def test_items_come_in_order_and_so_does_the_end() -> None:
    assert list(read_ahead(iter(range(100)), lambda item: 1, room=3)) == list(range(100))
    assert list(read_ahead(iter([]), lambda item: 1, room=3)) == []


@pytest.mark.parametrize(("size", "drawn"), [(1.0, 4), (0.5, 7), (100.0, 2)])
def test_no_more_is_drawn_than_there_is_room_for(size: float, drawn: int) -> None:
    """One was taken; of the rest as many wait as fill the room, and a large one fills it alone."""
    seen: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            seen.append(number)
            yield number

    ahead = read_ahead(items(), lambda item: size, room=3)
    assert next(ahead) == 0
    wait_for(lambda: len(seen) >= drawn)
    assert len(seen) == drawn
    assert list(ahead) == list(range(1, 50))


def test_what_is_raised_comes_after_what_came_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("the sixth")

    ahead = read_ahead(items(), lambda item: 1, room=3)
    assert list(islice(ahead, 5)) == list(range(5))
    with pytest.raises(ValueError, match="the sixth"):
        next(ahead)


def test_nothing_more_is_drawn_once_nobody_wants_it() -> None:
    seen: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            seen.append(number)
            yield number

    ahead = read_ahead(items(), lambda item: 1, room=2)
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]  # a generator, as it says it is an iterator
    count = len(seen)
    time.sleep(0.05)
    assert len(seen) == count <= 4
