"""The driver with workers that only pretend: tries, places, refusals, and what it says of them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from embedkit.distributed.driver import Status, drive
from embedkit.distributed.executor import Done, Event, Failed, Refused, Working
from embedkit.distributed.receipts import Receipt
from embedkit.distributed.shard import ShardProgress
from embedkit.errors import DeviceError


def receipt(shard: int) -> Receipt:
    return Receipt(shard=shard, plan="", documents=2, passages=3, content_hash="", tokens=5)


class Workers:
    """Does what a script says of each shard's tries: "done", "failed" or "refused"; notes what it was given."""

    def __init__(self, count: int, script: dict[int, list[str]] | None = None) -> None:
        self.count, self.script = count, script or {}
        self.given: list[tuple[int, str]] = []
        self.flying: list[int] = []
        self.most = 0
        self.cancelled = False

    @property
    def room(self) -> int:
        return self.count - len(self.flying)

    @property
    def workers(self) -> int:
        return self.count

    def submit(self, shard: int, *, avoid: str = "") -> None:
        self.given.append((shard, avoid))
        self.flying.append(shard)
        self.most = max(self.most, len(self.flying))

    def as_completed(self, seconds: float) -> Iterable[Event]:
        shard = self.flying.pop(0)
        what = self.script.get(shard, [])
        outcome = what.pop(0) if what else "done"
        if outcome == "failed":
            return [Failed("w", shard, f"no luck with {shard}", "node 1")]
        if outcome == "refused":
            self.count -= 1
            return [Refused("w", "it has no AVX-512", shard)]
        return [Working("w", ShardProgress(shard, 1, 2, 0.5)), Done("w", receipt(shard))]

    def cancel(self) -> None:
        self.cancelled = True


def go(workers: Workers, shards: int) -> Status:
    status = Status(shards)
    for _ in drive(workers, range(shards), status, sizes=[10] * shards):
        pass
    return status


def test_what_is_in_flight_is_bounded_and_everything_is_counted() -> None:
    workers = Workers(3)
    status = go(workers, 20)
    assert workers.most == 3
    assert sorted(status.done) == list(range(20))
    assert (status.passages, status.tokens, status.fraction, status.running) == (60, 100, 1.0, 0)


def test_a_second_try_is_made_elsewhere() -> None:
    workers = Workers(2, {1: ["failed"]})
    status = go(workers, 3)
    assert sorted(status.done) == [0, 1, 2]
    assert status.failed == {}
    assert [each.reason for each in status.retried] == ["no luck with 1"]
    assert [avoid for shard, avoid in workers.given if shard == 1] == ["", "node 1"]


def test_after_two_tries_a_shard_is_reported_and_the_others_go_on() -> None:
    workers = Workers(2, {1: ["failed", "failed"]})
    status = go(workers, 5)
    assert sorted(status.done) == [0, 2, 3, 4]
    assert status.failed == {1: "no luck with 1"}


def test_a_worker_that_refuses_costs_its_shard_no_try() -> None:
    workers = Workers(3, {0: ["refused", "failed"], 1: ["refused"]})
    status = go(workers, 4)
    assert sorted(status.done) == [0, 1, 2, 3]
    assert len(status.refused) == 2


def test_where_every_worker_refuses_the_reason_is_told() -> None:
    workers = Workers(2, {0: ["refused", "refused"], 1: ["refused"]})
    with pytest.raises(DeviceError, match="no worker can build these shards: it has no AVX-512"):
        go(workers, 2)
    assert workers.cancelled


def test_whoever_stops_listening_stops_the_workers() -> None:
    workers = Workers(1)
    reports = drive(workers, range(3), Status(3), sizes=[1] * 3)
    next(reports)
    reports.close()  # type: ignore[attr-defined] # of a generator
    assert workers.cancelled


def test_slow_workers_are_named() -> None:
    status = Status(3, rates={"a": 10.0, "b": 11.0, "c": 4.0})
    assert status.slow == ["c"]
    assert Status(3, rates={"a": 1.0}).slow == []


class TimedWorkers:
    """Workers in a time of their own: each shard takes so long, and on a straggler ten times as long."""

    def __init__(self, count: int, straggler: int | None, *, fails: bool = False) -> None:
        self.now, self.free, self.straggler, self.fails = 0.0, list(range(count)), straggler, fails
        self.flying: list[tuple[float, int, int]] = []  # end, worker, shard
        self.given: list[int] = []
        self.cancelled = False

    @property
    def room(self) -> int:
        return len(self.free)

    @property
    def workers(self) -> int:
        return len(self.free) + len(self.flying)

    def submit(self, shard: int, *, avoid: str = "") -> None:
        worker = self.free.pop(0)
        self.given.append(shard)
        self.flying.append((self.now + (1000.0 if worker == self.straggler else 100.0), worker, shard))

    def as_completed(self, seconds: float) -> Iterable[Event]:
        self.flying.sort()
        if self.flying[0][0] > self.now + 10:  # nothing has happened meanwhile
            self.now += 10
            return []
        self.now, worker, shard = self.flying.pop(0)
        self.free.append(worker)
        if self.fails and self.given.count(shard) == 2 and worker != self.straggler:
            return [Failed(str(worker), shard, "no luck")]
        return [Done(str(worker), receipt(shard))]

    def cancel(self) -> None:
        self.cancelled = True


@pytest.mark.parametrize("straggler", [None, 1])
def test_the_shard_of_a_straggler_is_given_to_a_second_worker_once_nothing_else_is_to_be_done(
    straggler: int | None,
) -> None:
    """Six shards of 100 s on three workers take 200 s; with one of them ten times slower 1,000 s without a copy."""
    workers, status = TimedWorkers(3, straggler), Status(6)
    for _ in drive(workers, range(6), status, sizes=[10] * 6, clock=lambda: workers.now):
        pass
    assert sorted(status.done) == list(range(6))
    assert status.copied == ([] if straggler is None else [1])
    assert workers.now <= (200 if straggler is None else 400)
    assert status.fraction == 1.0


def test_a_copy_that_fails_is_no_failure_while_the_first_worker_goes_on() -> None:
    workers, status = TimedWorkers(3, 1, fails=True), Status(6)
    for _ in drive(workers, range(6), status, sizes=[10] * 6, clock=lambda: workers.now):
        pass
    assert sorted(status.done) == list(range(6))
    assert status.retried == []
    assert not status.failed
