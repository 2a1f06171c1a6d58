"""Local workers that die, hang or take too much memory are noticed, and replaced."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedkit.distributed.executor import Done, Event, Failed, Refused, WorkerOptions
from embedkit.distributed.local import LocalExecutor
from embedkit.distributed.planning import planned
from embedkit.distributed.receipts import Receipt
from tests.distributed import request

Start = Callable[..., LocalExecutor]


@pytest.fixture
def start(tmp_path: Path, corpus: list[Path], static_model: Path) -> Iterator[Start]:
    executors = []

    def started(workers: int = 1, **options: object) -> LocalExecutor:
        values: dict[str, Any] = {"threads": 1, **options}
        executor = LocalExecutor(tmp_path / "big", WorkerOptions(**values), workers=workers)
        executors.append(executor)
        return executor

    with planned(tmp_path / "big", request(corpus, static_model)):
        yield started
    for executor in executors:
        executor.cancel()


def outcome(executor: LocalExecutor) -> Event:
    """Wait for what becomes of a shard."""
    ends = time.monotonic() + 180
    while time.monotonic() < ends:
        for event in executor.as_completed(1.0):
            if isinstance(event, Done | Failed | Refused):
                return event
    raise AssertionError("nothing came of the shard")


def test_a_worker_that_is_killed_loses_its_shard_and_another_takes_its_place(start: Start) -> None:
    executor = start()
    executor.submit(0)
    (worker,) = executor.processes
    assert executor.room == 0
    os.kill(worker, signal.SIGKILL)
    event = outcome(executor)
    assert isinstance(event, Failed)
    assert "it died: SIGKILL" in event.reason
    assert executor.room == 1
    executor.submit(0, avoid=event.place)
    assert executor.processes != [worker]
    assert isinstance(outcome(executor), Done)


def test_a_full_disk_fails_the_shard_and_another_try_ends_well(start: Start, tmp_path: Path) -> None:
    """The system lets the worker write no file of more than 30,000 bytes; its successor may write again."""
    executor = start()
    executor.submit(0)
    (worker,) = executor.processes
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (30_000, 30_000))
    event = outcome(executor)
    assert isinstance(event, Failed)
    assert re.search(r"[Mm]ake room|disk I/O error|the disk", event.reason)
    assert not list((tmp_path / "big").glob("receipts/*"))
    os.kill(worker, signal.SIGKILL)
    executor.submit(0)
    event = outcome(executor)
    if isinstance(event, Failed):  # its pipe was still open when the shard was given to it
        executor.submit(0)
        event = outcome(executor)
    assert isinstance(event, Done)


def test_a_worker_that_hangs_is_ended(start: Start) -> None:
    executor = start(timeout_seconds=0.5)
    executor.submit(0)
    (worker,) = executor.processes
    os.kill(worker, signal.SIGSTOP)
    event = outcome(executor)
    assert isinstance(event, Failed)
    assert "nothing was heard of it for" in event.reason
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_worker_that_holds_too_much_memory_is_replaced_after_its_shard(start: Start) -> None:
    executor = start(memory_bytes=1)
    executor.submit(0)
    (worker,) = executor.processes
    assert isinstance(outcome(executor), Done)
    executor.submit(1)
    assert isinstance(outcome(executor), Done)
    assert worker not in executor.processes


def test_a_worker_takes_one_shard_after_another_and_builds_none_again(start: Start) -> None:
    executor = start()
    receipts: list[Receipt] = []
    workers = set()
    for shard in (0, 1, 2, 1):
        executor.submit(shard)
        event = outcome(executor)
        assert isinstance(event, Done)
        receipts.append(event.receipt)
        workers |= set(executor.processes)
    assert [receipt.shard for receipt in receipts] == [0, 1, 2, 1]
    assert receipts[1] == receipts[3]
    assert len(workers) == 1


def test_a_worker_of_another_version_refuses(start: Start, tmp_path: Path) -> None:
    from tests.distributed.test_planning import rewrite

    rewrite(tmp_path / "big", embedkit="9.9")
    executor = start(2)
    executor.submit(3)
    event = outcome(executor)
    assert isinstance(event, Refused)
    assert event.shard == 3
    assert executor.workers == 0  # those of one machine are all alike


def test_the_threads_of_a_worker_are_limited_before_libraries_load() -> None:
    variables = WorkerOptions(threads=3).variables()
    assert variables["OMP_NUM_THREADS"] == variables["EMBEDKIT_THREADS"] == "3"
