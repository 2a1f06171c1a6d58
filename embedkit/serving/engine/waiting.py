"""The windows that wait as tokens, and the choice of the next batch.

1. A lane holds what may stand in one batch: windows of the same model, kind of work, and number of tokens left out of pooling.
2. A window is due at once if somebody waits for it (interactive), and `age_seconds` later if not (bulk). What is due goes before
   what is not, so bulk work waits for interactive work, and not for ever.
3. Of the lanes with something due, or else of all, that goes next whose model has computed least: models share the thread evenly.
   One that had nothing to do saves up no time (start-time fair queueing: Goyal, Vin and Cheng 1996, SIGCOMM).
4. In the lane, sequences of the oldest windows are sorted by length and cut into batches; the one that holds the longest of the
   oldest window is computed. Bulk work never fills up a batch that somebody waits for.
5. A batch that is not full waits for texts that are being tokenized, for at most `linger_seconds` after its oldest window came.

Not for several threads: the engine's lock guards all of this.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from embedkit.serving.engine.pace import Pace
from embedkit.serving.engine.request import Window
from embedkit.serving.engine.tasks import Task, Tokens
from embedkit.serving.engine.work import Priority
from embedkit.tokenization.batching import micro_batches, padded_batches

# Sorted together are sequences of so many batches at least: enough for neighbours of like length.
BATCHES_AHEAD = 4
# A batch is computed to its end before anything else: of about this long, and not of fewer tokens than this, below which the
# products of a CPU get slower (benchmarks/encode.py measures with 2,048).
BATCH_SECONDS = 0.1
LEAST_TOKENS = 512
PRIORITIES: tuple[Priority, ...] = ("interactive", "bulk")


@dataclass(frozen=True)
class QueuedPart:
    """Sequences of a window in a batch."""

    window: Window
    tokens: Tokens
    rows: NDArray[np.int64]

    @property
    def num_tokens(self) -> int:
        return int(self.tokens.batch.lengths[self.rows].sum())


@dataclass(frozen=True)
class MixedBatch:
    """What is computed in one go."""

    task: Task[Any]  # of the first part; it computes all of them alike
    parts: tuple[QueuedPart, ...]


@dataclass(eq=False)
class _Share:
    """What a model has computed: seconds, less those that it did not use while others did."""

    used: float = 0.0
    pace: Pace = field(default_factory=Pace)


@dataclass(eq=False)
class _Lane:
    share: _Share
    windows: dict[Priority, OrderedDict[Window, None]] = field(
        default_factory=lambda: {priority: OrderedDict() for priority in PRIORITIES}
    )
    coming: dict[Priority, int] = field(default_factory=lambda: dict.fromkeys(PRIORITIES, 0))

    @property
    def filled(self) -> bool:
        return any(self.windows.values())


class Waiting:
    """All lanes."""

    def __init__(self, *, age_seconds: float, linger_seconds: float) -> None:
        self.age_seconds, self.linger_seconds = age_seconds, linger_seconds
        self._lanes: dict[Hashable, _Lane] = {}
        self._shares: WeakKeyDictionary[Any, _Share] = WeakKeyDictionary()  # Any: models
        self._used = 0.0  # what the model had used that computed last, when it began

    def announce(self, task: Task[Any]) -> None:
        """Say that a window is being tokenized; `arrived` takes that back."""
        self._lane(task).coming[task.priority] += 1

    def arrived(self, window: Window, *, ready: bool) -> None:
        """Say that a window is tokenized and, if it is `ready` and filled, waits from now on."""
        lane, priority = self._lane(window.task), window.task.priority
        lane.coming[priority] -= 1
        if ready:
            if not any(each.filled for each in self._lanes.values() if each.share is lane.share):
                lane.share.used = max(lane.share.used, self._used)
            lane.windows[priority][window] = None
        self._tidy(window.task)

    def remove(self, window: Window) -> None:
        """Forget a window, wherever it is by now."""
        lane = self._lanes.get(_key(window.task))
        if lane is not None:
            lane.windows[window.task.priority].pop(window, None)
            self._tidy(window.task)

    def charge(self, task: Task[Any], tokens: int, seconds: float) -> None:
        """Note what a batch took."""
        share = self._share(task)
        share.used += seconds
        share.pace.add(tokens, seconds)

    def next(self, now: float) -> MixedBatch | float | None:
        """Take the next batch out; or return the seconds to wait for a fuller one; None if nothing waits."""
        order: list[tuple[bool, float, float, int, _Lane]] = []
        for lane in self._lanes.values():
            if lane.filled:
                due = self._due(next(self._oldest_first(lane)))
                order.append((due > now, lane.share.used, due, len(order), lane))
        patience: float | None = None
        for is_early, _, _, _, lane in sorted(order, key=lambda entry: entry[:-1]):
            if is_early and patience is not None:  # somebody waits, and for less than a bulk batch takes
                break
            found = self._batch(lane, now, is_early=is_early)
            if isinstance(found, MixedBatch):
                self._used = lane.share.used
                return found
            patience = found if patience is None else min(patience, found)
        return patience

    def _batch(self, lane: _Lane, now: float, *, is_early: bool) -> MixedBatch | float:
        """Take the next batch out of a lane, or return the seconds to wait for a fuller one."""
        first = next(self._oldest_first(lane))
        budget = self._budget(first.task, lane.share.pace)
        windows = []
        ahead = 0
        for window in self._oldest_first(lane):
            if ahead >= BATCHES_AHEAD * budget or (self._due(window) > now) != is_early:
                break
            windows.append(window)
            ahead += window.num_tokens
        lengths, chosen = _cut(windows, budget, padded=first.task.padded)
        full = len(chosen) < len(lengths) or int(lengths.sum()) >= budget
        left = first.ready + self.linger_seconds - now
        if not full and left > 0 and lane.coming[first.task.priority]:
            return left
        return MixedBatch(first.task, tuple(self._parts(windows, chosen)))

    def _parts(self, windows: list[Window], chosen: NDArray[np.int64]) -> Iterator[QueuedPart]:
        """Take the chosen ones out of the sequences of windows, numbered window after window."""
        ends = np.cumsum([len(window.rows) for window in windows])
        owners = np.searchsorted(ends, chosen, side="right")
        for owner in np.unique(owners).tolist():
            window = windows[owner]
            own = chosen[owners == owner] - (ends[owner] - len(window.rows))
            assert window.tokens is not None
            yield QueuedPart(window, window.tokens, window.rows[own])
            window.rows = np.delete(window.rows, own)
            if not len(window.rows):
                self.remove(window)

    def _due(self, window: Window) -> float:
        return window.ready + (0.0 if window.task.priority == "interactive" else self.age_seconds)

    def _oldest_first(self, lane: _Lane) -> Iterator[Window]:
        """Yield a lane's windows in the order in which they are due."""
        urgent, bulk = (iter(lane.windows[priority]) for priority in PRIORITIES)
        first, second = next(urgent, None), next(bulk, None)
        while first is not None or second is not None:
            if second is None or (first is not None and self._due(first) <= self._due(second)):
                assert first is not None
                yield first
                first = next(urgent, None)
            else:
                yield second
                second = next(bulk, None)

    def _budget(self, task: Task[Any], pace: Pace) -> int:
        """Return the tokens of a batch: the model's own budget, or fewer where that takes long."""
        per_second = pace.per_second
        fast = LEAST_TOKENS if per_second is None else max(LEAST_TOKENS, int(per_second * BATCH_SECONDS))
        return min(task.token_budget, fast)

    def _share(self, task: Task[Any]) -> _Share:
        share = self._shares.get(task.model)
        if share is None:
            share = self._shares[task.model] = _Share(self._used)
        return share

    def _lane(self, task: Task[Any]) -> _Lane:
        lane = self._lanes.get(_key(task))
        if lane is None:
            lane = self._lanes[_key(task)] = _Lane(self._share(task))
        return lane

    def _tidy(self, task: Task[Any]) -> None:
        """Forget a lane in which nothing is, and its model with it."""
        lane = self._lanes[_key(task)]
        if not lane.filled and not any(lane.coming.values()):
            del self._lanes[_key(task)]


def _key(task: Task[Any]) -> Hashable:
    return task.kind, id(task.model), task.skip  # the lane's tasks keep the model alive


def _cut(windows: list[Window], budget: int, *, padded: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut the sequences of windows into batches, longest first, and return the one with the longest of the first window.

    Shapes:
        returns: the lengths of all sequences, window after window, and which of them the batch has
    """
    found = []
    for window in windows:
        assert window.tokens is not None
        found.append(window.tokens.batch.lengths[window.rows])
    lengths = np.concatenate(found)
    anchor = int(np.argmax(lengths[: len(found[0])]))
    cut = padded_batches if padded else micro_batches
    # A sequence without tokens, as static models have them, takes its place all the same.
    batches = cut(np.maximum(lengths, 1), budget)
    return lengths, next(rows for rows in batches if anchor in rows)
