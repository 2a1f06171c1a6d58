"""The driver: which shards are to be built, who builds them, and what becomes of those that fail.

It holds no state that the folder does not: killed at any moment, the same command finds out from the receipts what is done.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from embedkit.distributed.executor import Done, Event, Executor, Failed, Refused, Working
from embedkit.distributed.receipts import Receipt
from embedkit.distributed.shard import ShardProgress
from embedkit.errors import DeviceError

ATTEMPTS = 2
WAIT_SECONDS = 0.5
SLOW = 0.5  # of the median of all workers' passages per second


@dataclass
class Status:
    """How far all shards are; the same object is yielded again and again."""

    total: int
    done: dict[int, Receipt] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)  # shard -> why its last try failed
    retried: list[Failed] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    working: dict[str, ShardProgress] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)  # passages per second of each worker, in its shard
    found: int = 0  # shards that were done before
    running: int = 0  # shards in the hands of workers
    fraction: float = 0.0
    passages: int = 0  # embedded by this run, in shards that are done and in those that are not
    tokens: int = 0
    seconds: float = 0.0

    @property
    def slow(self) -> list[str]:
        """The workers that are less than half as fast as is usual."""
        if len(self.rates) < 2:
            return []
        usual = median(self.rates.values())
        return [worker for worker, rate in self.rates.items() if rate < SLOW * usual]


def drive(
    executor: Executor,
    shards: Sequence[int],
    status: Status,
    *,
    sizes: Sequence[int],
    attempts: int = ATTEMPTS,
) -> Iterator[Status]:
    """Have shards built, `sizes` bytes each; yields how far that is, at least twice a second.

    A shard whose tries have all failed is in `status.failed`, and the others go on.

    Raises:
        DeviceError: no worker can work on the plan.
    """
    run = _Run(executor, status, sizes, attempts)
    try:
        yield from run.run(shards)
    except BaseException:
        executor.cancel()
        raise


class _Run:
    def __init__(self, executor: Executor, status: Status, sizes: Sequence[int], attempts: int) -> None:
        self.executor, self.status, self.sizes, self.attempts = executor, status, sizes, attempts
        self.tries: dict[int, int] = {}
        self.avoid: dict[int, str] = {}
        self.waiting: deque[int] = deque()
        self.running: set[int] = set()
        self.since: dict[str, tuple[int, float]] = {}  # worker -> its shard, and when it was first heard of
        self.before = (status.passages, status.tokens)
        self.total = max(1, sum(sizes))
        self.whole = sum(sizes[shard] for shard in status.done)
        self.begun = time.monotonic() - status.seconds

    def run(self, shards: Sequence[int]) -> Iterator[Status]:
        self.waiting.extend(shards)
        while self.waiting or self.running:
            if not self.executor.workers and not self.running:
                reasons = "; ".join(dict.fromkeys(each.reason for each in self.status.refused))
                raise DeviceError(
                    f"no worker can build these shards: {reasons}. Compute with --precision fp32 and --backend auto in a new index",
                    ", or let workers compute otherwise with --allow-other",
                )
            while self.waiting and self.executor.room > 0:
                shard = self.waiting.popleft()
                self.running.add(shard)
                self.executor.submit(shard, avoid=self.avoid.get(shard, ""))
            for event in self.executor.as_completed(WAIT_SECONDS):
                self._take(event)
            self._count()
            yield self.status

    def _take(self, event: Event) -> None:
        status = self.status
        if isinstance(event, Working):
            self._progress(event)
            return
        status.working.pop(event.worker, None)
        self.since.pop(event.worker, None)
        if isinstance(event, Done):
            shard = event.receipt.shard
            self.running.discard(shard)
            self.whole += self.sizes[shard]
            status.done[shard] = event.receipt
            status.failed.pop(shard, None)
            self.before = (self.before[0] + event.receipt.passages, self.before[1] + event.receipt.tokens)
        elif isinstance(event, Failed):
            self.running.discard(event.shard)
            self._again(event)
        else:
            status.refused.append(event)
            status.rates.pop(event.worker, None)
            if event.shard is not None:
                self.running.discard(event.shard)
                self.waiting.appendleft(event.shard)

    def _again(self, event: Failed) -> None:
        """Try a shard again elsewhere, or report it."""
        self.status.rates.pop(event.worker, None)
        self.tries[event.shard] = tries = self.tries.get(event.shard, 0) + 1
        if tries >= self.attempts:
            self.status.failed[event.shard] = event.reason
            return
        self.status.retried.append(event)
        self.avoid[event.shard] = event.place
        self.waiting.append(event.shard)

    def _progress(self, event: Working) -> None:
        progress, now = event.progress, time.monotonic()
        shard, first = self.since.get(event.worker, (-1, now))
        if shard != progress.shard:
            self.since[event.worker] = (progress.shard, now)
        elif now > first:
            self.status.rates[event.worker] = progress.passages / (now - first)
        self.status.working[event.worker] = progress

    def _count(self) -> None:
        status = self.status
        status.running = len(self.running)
        status.passages = self.before[0] + sum(each.passages for each in status.working.values())
        status.tokens = self.before[1] + sum(each.tokens for each in status.working.values())
        part = sum(self.sizes[each.shard] * each.fraction for each in status.working.values())
        status.fraction = min(1.0, (self.whole + part) / self.total)
        status.seconds = time.monotonic() - self.begun
