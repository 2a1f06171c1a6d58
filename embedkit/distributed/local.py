"""Workers as processes of this machine, started afresh (spawn), each with a pipe to the driver.

A worker that dies closes its pipe, and one that hangs stays silent; both lose their shard, and a new one takes their place. A worker
whose driver has died cannot write to its pipe any more, and ends.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedkit.distributed.executor import Done, Event, Failed, Refused, WorkerOptions, Working, resident_bytes
from embedkit.machine import ctrl_c_deferred

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

REPORT_SECONDS = 0.2  # between two words of a worker on its progress
_END_SECONDS = 5.0  # that a process is given to end by itself


@dataclass
class _Worker:
    name: str
    process: BaseProcess
    pipe: Any  # multiprocessing's Connection, which typeshed makes generic in some versions
    shard: int | None = None
    heard: float = 0.0


class LocalExecutor:
    """So many processes on this machine; see `embedkit.distributed.executor.Executor`."""

    def __init__(self, folder: Path, options: WorkerOptions, *, workers: int) -> None:
        """Workers start when the first shards come."""
        self._folder, self._options, self._count = folder, options, workers
        self._context = get_context("spawn")
        self._workers: list[_Worker] = []
        self._number = 0

    @property
    def room(self) -> int:
        return self._count - sum(worker.shard is not None for worker in self._workers)

    @property
    def workers(self) -> int:
        return self._count

    @property
    def processes(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def submit(self, shard: int, *, avoid: str = "") -> None:
        """Give a shard to a worker that has none, another than `avoid` where there is one."""
        free = [worker for worker in self._workers if worker.shard is None]
        others = [worker for worker in free if worker.name != avoid]
        if not others and len(self._workers) < self._count:
            others = [self._start()]
        worker = (others or free)[0]
        worker.shard, worker.heard = shard, time.monotonic()
        with suppress(OSError):  # it has died; `as_completed` finds its pipe closed
            worker.pipe.send(shard)

    def as_completed(self, seconds: float) -> Iterator[Event]:
        """Return what the workers say, and which of them have died or say nothing."""
        pipes = {worker.pipe: worker for worker in self._workers}
        if not pipes:
            return
        for pipe in connection.wait(list(pipes), seconds):
            yield from self._hear(pipes[pipe])
        for worker in list(self._workers):
            silent = time.monotonic() - worker.heard
            if worker.shard is not None and silent > self._options.timeout_seconds:
                yield self._lost(worker, f"nothing was heard of it for {silent:,.0f} s; it was ended")

    def cancel(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        ends = time.monotonic() + _END_SECONDS
        for worker in self._workers:
            worker.process.join(max(0.0, ends - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._workers = []

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        self._number += 1
        process = self._context.Process(
            target=work,
            args=(theirs, self._folder, self._options),
            name=f"embedkit-{self._number}",
            daemon=True,
        )
        with ctrl_c_deferred():
            process.start()
        theirs.close()  # so that the pipe ends with the process
        worker = _Worker(f"worker {self._number}", process, ours, heard=time.monotonic())
        self._workers.append(worker)
        return worker

    def _hear(self, worker: _Worker) -> Iterator[Event]:
        try:
            while worker in self._workers and worker.pipe.poll():
                kind, content, memory = worker.pipe.recv()
                worker.heard = time.monotonic()
                if kind == "progress":
                    yield Working(worker.name, content)
                else:
                    yield from self._built(worker, kind, content, memory)
        except (EOFError, OSError):
            if worker.shard is None:
                self._forget(worker)
                return
            worker.process.join(_END_SECONDS)
            yield self._lost(worker, f"it died: {_exit(worker.process.exitcode)}")

    def _built(
        self, worker: _Worker, kind: str, content: Any, memory: int
    ) -> Iterator[Event]:  # Any: see `work`
        shard, worker.shard = worker.shard, None
        if self._options.memory_bytes is not None and memory > self._options.memory_bytes:
            self._forget(worker)  # another one takes its place
        if kind == "done":
            yield Done(worker.name, content)
        elif kind == "failed" and shard is not None:
            yield Failed(worker.name, shard, content, worker.name)
        elif kind == "refused":  # as every other one here would
            self._count = 0
            yield Refused(worker.name, content, shard)

    def _lost(self, worker: _Worker, reason: str) -> Failed:
        shard = worker.shard
        assert shard is not None
        self._forget(worker)
        return Failed(worker.name, shard, f"{worker.name} on {socket.gethostname()}: {reason}", worker.name)

    def _forget(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}{' (perhaps for want of memory)' if name == 'SIGKILL' else ''}"
    return f"exit code {code}"


def work(pipe: Any, folder: Path, options: WorkerOptions) -> None:  # Any: as above
    """Be a worker: take the numbers of shards from a pipe, and say what becomes of them, until the driver is gone."""
    os.environ.update(options.variables())  # before torch and numpy are loaded
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends its workers
    from embedkit.distributed.product import WorkerRefusedError
    from embedkit.distributed.shard import ShardBuilder, ShardProgress
    from embedkit.errors import EmbedkitError

    builder = ShardBuilder(folder)
    said = 0.0

    def report(progress: ShardProgress) -> None:
        nonlocal said
        if time.monotonic() - said >= REPORT_SECONDS:
            pipe.send(("progress", progress, 0))
            said = time.monotonic()

    try:
        while True:
            shard = pipe.recv()
            try:
                builder.prepare()
                answer: tuple[str, object] = ("done", builder.build(shard, report))
            except WorkerRefusedError as exc:
                answer = ("refused", str(exc))
            except EmbedkitError as exc:
                answer = ("failed", str(exc))
            except (BrokenPipeError, ConnectionResetError):
                return
            except Exception as exc:
                traceback.print_exc()
                answer = ("failed", f"{type(exc).__name__}: {exc}")
            pipe.send((*answer, resident_bytes()))
    except (EOFError, OSError):
        return  # the driver is gone
