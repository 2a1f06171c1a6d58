"""Workers on a Ray cluster: one actor each, which holds the model and builds one shard after another.

All nodes see the folder of the index and the input under the same paths. The driver hears of a dead actor or node from Ray, and asks
the others every second how far they are: one whose answer does not change for too long hangs. Ray Data is not used: its tasks
restart and are cut as it sees fit, and a shard must be one worker's from its first text to its last.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from embedkit.distributed.executor import Done, Event, Failed, Refused, WorkerOptions, Working, resident_bytes
from embedkit.distributed.product import WorkerRefusedError
from embedkit.distributed.requests import Resolved, ShardRequest
from embedkit.distributed.resolving import resolve
from embedkit.distributed.shard import ShardBuilder, ShardProgress
from embedkit.errors import DeviceError, EmbedkitError
from embedkit.extras import load_extra

_ASK_SECONDS = 1.0
_ROOM_SECONDS = 20.0  # a worker that starts is waited for so long before another one takes its shard


def _ray() -> Any:  # Any: the module embedkit.extras.ray
    return load_extra("ray", purpose="--executor ray")


class RemoteWorker:
    """What lives in an actor."""

    def __init__(self, folder: Path | None) -> None:
        self._builder = None if folder is None else ShardBuilder(folder)
        self._progress: ShardProgress | None = None

    def place(self) -> tuple[str, str]:
        """Return the node's id and the host's name."""
        return _ray().node_here(), socket.gethostname()

    def process(self) -> int:
        return os.getpid()

    def resolve(self, request: ShardRequest) -> Resolved:
        return resolve(request)

    def build(self, shard: int) -> tuple[str, object, int]:
        """Build a shard; return what became of it, and how much memory this process holds."""
        assert self._builder is not None
        try:
            self._builder.prepare()
            receipt = self._builder.build(shard, self._report)
        except WorkerRefusedError as exc:
            return "refused", str(exc), 0
        except EmbedkitError as exc:
            return "failed", str(exc), resident_bytes()
        return "done", receipt, resident_bytes()

    def progress(self) -> ShardProgress | None:
        return self._progress

    def _report(self, progress: ShardProgress) -> None:
        self._progress = progress


class RayCluster:
    """A cluster, joined when it is first needed, and what each worker has of it."""

    def __init__(self, address: str | None, *, workers: int | None = None, gpus: float = 0.0) -> None:
        self.address, self.workers, self.gpus = address, workers, gpus

    def resolve(self, request: ShardRequest) -> Resolved:
        """Resolve a plan where workers with GPUs run; the driver's machine may have none.

        Raises:
            As `embedkit.distributed.planning.resolve`; DeviceError: the cluster has no room for a worker, or lost it.
        """
        ray = _ray()
        ray.connect(self.address)
        options = WorkerOptions(threads=request.threads)
        handle = self.start(partial(RemoteWorker, None), options)
        try:
            found: Resolved = ray.answer(ray.call(handle, "resolve", request), options.timeout_seconds)
        except (ray.GoneError, TimeoutError) as exc:
            raise DeviceError(
                f"no worker of the cluster could load the model: {exc}. See: ray status"
            ) from exc
        finally:
            ray.kill(handle)
        return found

    def executor(self, folder: Path, options: WorkerOptions) -> RayExecutor:
        """Join the cluster and return what runs workers there.

        Raises:
            DeviceError: there is no cluster, or none of its nodes has what a worker needs.
        """
        ray = _ray()
        ray.connect(self.address)
        most = ray.capacity(options.threads, self.gpus, options.memory_bytes)
        if not most:
            ray.disconnect()
            raise DeviceError(
                f"no node of the cluster has {options.threads} CPUs, {self.gpus:g} GPUs and the memory that a worker is to have. "
                "See: ray status; ask for less with --gpus-per-worker or --memory-per-worker"
            )
        return RayExecutor(self, folder.absolute(), options, workers=min(self.workers or most, most))

    def start(
        self, make: partial[RemoteWorker], options: WorkerOptions, avoid: str = ""
    ) -> Any:  # Any: Ray's
        return _ray().start(
            make,
            cpus=options.threads,
            gpus=self.gpus,
            memory=options.memory_bytes,
            variables=options.variables(),
            avoid=avoid,
        )


@dataclass
class _Worker:
    name: str
    handle: Any  # Ray's
    placed: Any | None  # the answer that tells where it runs, until that is known
    node: str = ""
    shard: int | None = None
    built: Any | None = None  # the answer that is waited for
    asked: Any | None = None  # how far it is
    asked_at: float = 0.0
    heard: float = 0.0
    said: ShardProgress | None = None


class RayExecutor:
    """See `embedkit.distributed.executor.Executor`."""

    def __init__(self, cluster: RayCluster, folder: Path, options: WorkerOptions, *, workers: int) -> None:
        """Use `RayCluster.executor`."""
        self._cluster, self._folder, self._options, self._count = cluster, folder, options, workers
        self._ray = _ray()
        self._workers: list[_Worker] = []
        self._number = 0

    @property
    def room(self) -> int:
        return self._count - sum(worker.shard is not None for worker in self._workers)

    @property
    def workers(self) -> int:
        return self._count

    def submit(self, shard: int, *, avoid: str = "") -> None:
        free = [worker for worker in self._workers if worker.shard is None]
        others = [worker for worker in free if worker.node != avoid]
        if not others and len(self._workers) < self._count:
            others = [self._start(avoid)]
        self._give((others or free)[0], shard)

    def _give(self, worker: _Worker, shard: int) -> None:
        worker.shard, worker.heard, worker.said = shard, time.monotonic(), None
        worker.built = self._ray.call(worker.handle, "build", shard)

    def as_completed(self, seconds: float) -> Iterator[Event]:
        """Return what has become of shards, and how far the others are."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.placed is None and worker.asked is None and now - worker.asked_at > _ASK_SECONDS:
                worker.asked, worker.asked_at = self._ray.call(worker.handle, "progress"), now
        waiting = {}
        for worker in self._workers:
            for ref in (worker.placed, worker.asked, worker.built):
                if ref is not None:
                    waiting[ref] = worker
        for ref in self._ray.ready(list(waiting), seconds):
            if waiting[ref] in self._workers:
                yield from self._hear(waiting[ref], ref)
        yield from self._silent()
        self._move_waiting()

    def cancel(self) -> None:
        for worker in list(self._workers):
            self._forget(worker)
        self._ray.disconnect()

    def _start(self, avoid: str) -> _Worker:
        self._number += 1
        handle = self._cluster.start(partial(RemoteWorker, self._folder), self._options, avoid)
        placed = self._ray.call(handle, "place")
        worker = _Worker(f"worker {self._number}", handle, placed, heard=time.monotonic())
        self._workers.append(worker)
        return worker

    def _hear(self, worker: _Worker, ref: Any) -> Iterator[Event]:  # Any: Ray's
        try:
            answer = self._ray.answer(ref)
        except self._ray.GoneError as exc:
            yield from self._lost(worker, f"it died: {exc}")
            return
        except Exception as exc:  # a mistake of ours in the worker: told with the shard, as of a local one
            yield from self._lost(worker, f"{type(exc).__name__}: {exc}")
            return
        if ref is worker.placed:
            worker.placed, (worker.node, host) = None, answer
            worker.name, worker.heard = f"{worker.name} on {host}", time.monotonic()
        elif ref is worker.asked:
            worker.asked = None
            if answer is not None and answer != worker.said and answer.shard == worker.shard:
                worker.said, worker.heard = answer, time.monotonic()
                yield Working(worker.name, answer)
        else:
            worker.built = None
            yield from self._built(worker, *answer)

    def _built(
        self, worker: _Worker, kind: str, content: Any, memory: int
    ) -> Iterator[Event]:  # Any: see `build`
        shard, worker.shard = worker.shard, None
        assert shard is not None
        if kind == "done":
            yield Done(worker.name, content)
        elif kind == "failed":
            yield Failed(worker.name, shard, content, worker.node)
        else:  # this node's other workers would say the same
            self._count = max(0, self._count - 1)
            self._forget(worker)
            yield Refused(worker.name, content, shard)
            return
        if self._options.memory_bytes is not None and memory > self._options.memory_bytes:
            self._forget(worker)

    def _silent(self) -> Iterator[Event]:
        for worker in list(self._workers):
            silent = time.monotonic() - worker.heard
            if worker.shard is None or silent <= self._options.timeout_seconds:
                continue
            if worker.placed is None:
                yield from self._lost(worker, f"nothing was heard of it for {silent:,.0f} s; it was ended")
            elif all(each.placed is not None for each in self._workers):
                self._count = 0
                shard = worker.shard
                self._forget(worker)
                yield Refused(worker.name, "the cluster had no room for a worker; see: ray status", shard)

    def _move_waiting(self) -> None:
        """Take shards from workers that the cluster has no room for, where others have nothing to do."""
        idle = [worker for worker in self._workers if worker.placed is None and worker.shard is None]
        for worker in list(self._workers):
            waits = worker.placed is not None and time.monotonic() - worker.heard > _ROOM_SECONDS
            if waits and idle and worker.shard is not None:
                self._forget(worker)
                self._give(idle.pop(), worker.shard)

    def _lost(self, worker: _Worker, reason: str) -> Iterator[Event]:
        self._forget(worker)
        if worker.shard is not None:
            yield Failed(worker.name, worker.shard, f"{worker.name}: {reason}", worker.node)

    def _forget(self, worker: _Worker) -> None:
        self._ray.kill(worker.handle)
        self._workers.remove(worker)
