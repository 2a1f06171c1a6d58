"""The driver: which shards are to be built, who builds them, and what becomes of those that fail.

It holds no state that the folder does not: killed at any moment, the same command finds out from the receipts what is done.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from embedkit.distributed.executor import Done, Event, Executor, Failed, Refused, Working
from embedkit.distributed.receipts import Receipt
from embedkit.distributed.shard import ShardProgress
from embedkit.errors import DeviceError

ATTEMPTS = 2
WAIT_SECONDS = 0.5
# A shard that takes so many times what shards of its size take gets a second copy, once workers have nothing else to do.
STRAGGLES, STRAGGLES_SECONDS = 1.5, 10.0
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
    copied: list[int] = field(
        default_factory=list
    )  # shards that were given to a second worker, as the first was slow
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
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Status]:
    """Have shards built, `sizes` bytes each; yields how far that is, at least twice a second.

    A shard whose tries have all failed is in `status.failed`, and the others go on. At the end, when some workers have nothing to do,
    they try the shards of stragglers, too; what is done first counts.

    Raises:
        DeviceError: no worker can work on the plan.
    """
    run = _Run(executor, status, sizes, attempts, clock)
    try:
        yield from run.run(shards)
    except BaseException:
        executor.cancel()
        raise


class _Run:
    def __init__(
        self,
        executor: Executor,
        status: Status,
        sizes: Sequence[int],
        attempts: int,
        clock: Callable[[], float],
    ) -> None:
        self.executor, self.status, self.sizes, self.attempts = executor, status, sizes, attempts
        self.clock = clock
        self.copies: Counter[int] = Counter()  # shard -> how many workers have it
        self.begun_at: dict[int, float] = {}  # shard -> when its first worker got it
        self.pace: list[float] = []  # seconds for each byte, of the shards that are done
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
                    f"no worker can build these shards: {reasons}. Begin anew with --precision fp32 and --backend auto",
                    ", or let workers compute otherwise with --allow-other",
                )
            while self.waiting and self.executor.room > 0:
                self._submit(self.waiting.popleft())
            if not self.waiting:
                self._copy_stragglers()
            for event in self.executor.as_completed(WAIT_SECONDS):
                self._take(event)
            self._count()
            yield self.status

    def _submit(self, shard: int) -> None:
        self.running.add(shard)
        self.copies[shard] += 1
        self.begun_at.setdefault(shard, self.clock())
        self.executor.submit(shard, avoid=self.avoid.get(shard, ""))

    def _copy_stragglers(self) -> None:
        """Give the shards of the slowest workers to those that have nothing to do."""
        if not self.pace or self.executor.room <= 0:
            return
        pace, now = median(self.pace), self.clock()
        behind = {}
        for shard in self.running:
            usual = max(pace * self.sizes[shard], STRAGGLES_SECONDS)
            seconds = now - self.begun_at[shard]
            if self.copies[shard] == 1 and seconds > STRAGGLES * usual:
                behind[shard] = seconds / usual
        for shard in sorted(behind, key=behind.__getitem__, reverse=True)[: self.executor.room]:
            self.status.copied.append(shard)
            self._submit(shard)

    def _take(self, event: Event) -> None:
        status = self.status
        if isinstance(event, Working):
            if event.progress.shard in self.running:  # and not done by another worker
                self._progress(event)
            return
        status.working.pop(event.worker, None)
        self.since.pop(event.worker, None)
        if isinstance(event, Done):
            shard = event.receipt.shard
            if shard not in self.running:  # another copy was faster
                return
            self.running.discard(shard)
            self._forget_copies(shard)
            self.pace.append((self.clock() - self.begun_at[shard]) / max(1, self.sizes[shard]))
            self.whole += self.sizes[shard]
            status.done[shard] = event.receipt
            status.failed.pop(shard, None)
            self.before = (self.before[0] + event.receipt.passages, self.before[1] + event.receipt.tokens)
        elif isinstance(event, Failed):
            if self._gives_up(event.shard):
                self._again(event)
        else:
            status.refused.append(event)
            status.rates.pop(event.worker, None)
            if event.shard is not None and self._gives_up(event.shard):
                self.waiting.appendleft(event.shard)

    def _gives_up(self, shard: int) -> bool:
        """Say whether a copy that came to nothing was the last one of a shard that is not done."""
        self.copies[shard] -= 1
        if shard not in self.running or self.copies[shard] > 0:
            return False
        self.running.discard(shard)
        self.begun_at.pop(shard, None)
        return True

    def _forget_copies(self, shard: int) -> None:
        """Leave what other workers do of a shard that is done out of the counts."""
        for worker, progress in list(self.status.working.items()):
            if progress.shard == shard:
                del self.status.working[worker]
                self.status.rates.pop(worker, None)

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
