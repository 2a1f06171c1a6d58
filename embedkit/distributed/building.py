"""Building an index, vectors or rows with hard negatives in shards: which of them are done, the workers for the others, and the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from embedkit.distributed.driver import Status, drive
from embedkit.distributed.executor import Executor, WorkerOptions
from embedkit.distributed.finishing import finish, write_quarantine
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.products import product_of
from embedkit.distributed.receipts import Receipt, verified
from embedkit.distributed.vector_files import VECTORS, list_vectors
from indexes import SHARDS

_LOOKING = 8  # shards that are looked at at once
_AT_A_TIME = 256
MakeExecutor = Callable[[Path, WorkerOptions], Executor]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came of it. `lies` are shards that were built again since their receipts did not hold."""

    receipts: dict[int, Receipt]
    failed: dict[int, str]
    unread: int
    lies: dict[int, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.failed

    def total(self, name: str) -> int:
        """Add up a count of all receipts."""
        return sum(getattr(receipt, name) for receipt in self.receipts.values())


def find_done(folder: Path, plan: ShardPlan, total: int) -> Iterator[dict[int, Receipt | str]]:
    """Yield for shards from 0 to `total`, some at a time, their receipts, or why they are not done.

    Threads look at many at once: most of the time goes to waiting for the disk, or for the network that it lies on.
    """
    product = product_of(plan)

    def look(number: int) -> Receipt | str:
        try:
            return verified(folder, number, plan.digest, product)
        except ValueError as exc:
            return str(exc)

    with ThreadPoolExecutor(_LOOKING) as pool:
        for start in range(0, total, _AT_A_TIME):
            numbers = range(start, min(total, start + _AT_A_TIME))
            yield dict(zip(numbers, pool.map(look, numbers), strict=True))


class ShardedBuild:
    """One run of the command: iterate over `run`, then take the `summary`."""

    def __init__(self, folder: Path, plan: ShardPlan, make: MakeExecutor, options: WorkerOptions) -> None:
        """Take a plan whose folder nobody else builds in, and what makes the workers."""
        self.folder, self.plan, self._make, self._options = folder, plan, make, options
        self.status = Status(plan.num_shards)
        self.lies: dict[int, str] = {}

    def run(self) -> Iterator[Status]:
        """Build what is not done; yields how far that is.

        Raises:
            DeviceError: no worker can compute as planned.
            RecordError, IndexFileError, OutputError: the end cannot be written; the same command goes on.
        """
        status = self.status
        yield from self._find_done()
        missing = [number for number in range(status.total) if number not in status.done]
        if missing:
            for listed in (SHARDS, VECTORS):
                (self.folder / listed).unlink(missing_ok=True)  # until all are there again
            executor = self._make(self.folder, self._options)
            try:
                yield from self._drive(executor, missing)
            finally:
                executor.cancel()
        if status.failed:
            write_quarantine(self.folder, self.plan, status.done)
        elif self.plan.encoding:
            list_vectors(self.folder, self.plan, status.done)
        elif not self.plan.mining:
            status.done = finish(self.folder, self.plan, status.done)
        yield status

    def summary(self) -> Summary:
        status = self.status
        unread = len(self.plan.unread) + sum(each.quarantined for each in status.done.values())
        return Summary(receipts=status.done, failed=status.failed, unread=unread, lies=self.lies)

    def _find_done(self) -> Iterator[Status]:
        for found in find_done(self.folder, self.plan, self.status.total):
            for number, receipt in found.items():
                if isinstance(receipt, Receipt):
                    self.status.done[number] = receipt
                    self.status.found += 1
                elif receipt != "there is no receipt":
                    self.lies[number] = receipt
            yield self.status

    def _drive(self, executor: Executor, missing: list[int]) -> Iterator[Status]:
        sizes = [self.plan.size_of(number) for number in range(self.status.total)]
        if (
            not (self.plan.encoding or self.plan.mining)
            and self.plan.index_settings.decided_first is not None
        ):
            # Their steps, or codebook, are those of the first vectors, as in a build in one piece.
            done = self.status.done
            while missing and not any(done[n].passages for n in range(missing[0]) if n in done):
                yield from drive(executor, [missing.pop(0)], self.status, sizes=sizes)
        yield from drive(executor, missing, self.status, sizes=sizes)
