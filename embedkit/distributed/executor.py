"""The seam between the driver and what runs the workers: hand a shard over, hear what becomes of it, stop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from embedkit.distributed.receipts import Receipt
from embedkit.distributed.shard import ShardProgress


@dataclass(frozen=True)
class Working:
    """A worker is so far with its shard."""

    worker: str
    progress: ShardProgress


@dataclass(frozen=True)
class Done:
    """A shard is built and has its receipt."""

    worker: str
    receipt: Receipt


@dataclass(frozen=True)
class Failed:
    """A try at a shard has come to nothing. `place` is where, so that the next one goes elsewhere."""

    worker: str
    shard: int
    reason: str
    place: str = ""


@dataclass(frozen=True)
class Refused:
    """A worker cannot work on this plan; the shard that it had, if any, is to be given to another."""

    worker: str
    reason: str
    shard: int | None = None


Event = Working | Done | Failed | Refused


class Executor(Protocol):
    """Runs workers, each of which builds one shard after another."""

    @property
    def room(self) -> int:
        """How many more shards it takes now: one a worker, so that what is in flight stays bounded."""
        ...

    @property
    def workers(self) -> int:
        """How many workers there are, or may be started again."""
        ...

    def submit(self, shard: int, *, avoid: str = "") -> None:
        """Give a shard to a worker, to one at another place than `avoid` where there is one."""
        ...

    def as_completed(self, seconds: float) -> Iterable[Event]:
        """Wait up to so many seconds for something to happen; return what has."""
        ...

    def cancel(self) -> None:
        """Stop all workers, and wait until they have; what they were building counts for nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How workers run, whatever runs them.

    `threads` each. A worker that says nothing for `timeout_seconds` hangs: it is ended, and its shard tried again. One that has more than
    `memory_bytes` after a shard ends, and another takes its place.
    """

    threads: int
    timeout_seconds: float = 600.0
    memory_bytes: int | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        """Return what holds the libraries of a worker to its threads; it must be set before they are loaded."""
        count = str(self.threads)
        names = (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "RAYON_NUM_THREADS",
            "EMBEDKIT_THREADS",
        )
        return dict.fromkeys(names, count) | self.environment


def resident_bytes() -> int:
    """Return how much memory this process holds; 0 where the system does not tell."""
    import os
    from pathlib import Path

    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
