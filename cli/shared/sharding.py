"""Work in shards: the options, and the workers."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

import typer

from . import options
from .options import TUNING

if TYPE_CHECKING:
    from embedkit.distributed.building import ShardedBuild
    from embedkit.distributed.executor import Executor, WorkerOptions
    from embedkit.distributed.plan import ShardPlan
    from embedkit.distributed.ray_workers import RayCluster
    from embedkit.distributed.requests import Resolve

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
Kind = TypeVar("Kind")


def parse_bytes(text: str) -> int:
    """Read a size such as 512M or 8G, as the value of an option."""
    found = re.fullmatch(r"(\d+)([kmgt]?)(?:i?b)?", text.strip().lower())
    if found is None or not int(found[1]):
        raise typer.BadParameter(f"{text!r} is no size; write it as 512M or 8G")
    return int(found[1]) * _UNITS[found[2]]


def plain(given: object, kind: type[Kind]) -> Kind:
    """Return the part of a group of options that the library knows."""
    return kind(**{each.name: getattr(given, each.name) for each in fields(kind)})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How an index, or a file of vectors, is made in shards, and by which workers."""

    PANEL: ClassVar[str] = "Shards and workers"

    shards: Annotated[
        int | None,
        typer.Option(
            "--shards",
            metavar="N",
            min=1,
            max=99_999,
            help="Cut the input into up to N shards, which workers make; stopped, the same command goes on.",
            show_default=False,
        ),
    ] = None
    executor: Annotated[
        Literal["local", "ray"],
        typer.Option("--executor", help="Where workers run: processes of this machine, or a Ray cluster."),
    ] = "local"
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="The Ray cluster. Default: $RAY_ADDRESS, or the one that runs here, or a new one on this machine.",
            show_default=False,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="How many work at once. Default: local 1, ray as many as the cluster has room for.",
            show_default=False,
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads-per-worker",
            metavar="N",
            min=1,
            help="Processors of each worker. Default: this machine's, shared among local workers; ray 1.",
            show_default=False,
        ),
    ] = None
    gpus_per_worker: Annotated[
        float,
        typer.Option(
            "--gpus-per-worker", metavar="X", min=0.0, help="GPUs of each Ray worker, such as 1 or 0.5."
        ),
    ] = 0.0
    memory_per_worker: Annotated[
        str | None,
        typer.Option(
            "--memory-per-worker",
            metavar="SIZE",
            help="A worker that holds more after a shard, such as 8G, is replaced; Ray sets so much aside for each.",
            show_default=False,
        ),
    ] = None
    worker_timeout: Annotated[
        str,
        typer.Option(
            "--worker-timeout",
            rich_help_panel=TUNING,
            metavar="TIME",
            help="A worker that says nothing for so long is ended, and its shard tried again.",
        ),
    ] = "600s"
    allow_other: Annotated[
        bool,
        typer.Option(
            "--allow-other",
            rich_help_panel=TUNING,
            help="Let a worker that cannot compute with the plan's precision and backend use what it can; receipts say so. Default: refuse it.",
        ),
    ] = False

    def refuse_alone(self) -> None:
        """Refuse options that mean nothing without shards.

        Raises:
            BadParameter: one was given.
        """
        usual = Sharding()
        for name in (
            "executor",
            "address",
            "workers",
            "threads",
            "gpus_per_worker",
            "memory_per_worker",
            "allow_other",
        ):
            if getattr(self, name) != getattr(usual, name):
                option = {"threads": "threads-per-worker"}.get(name, name.replace("_", "-"))
                raise typer.BadParameter(f"--{option} needs --shards N")

    def num_threads(self) -> int:
        """Return how many processors each worker has."""
        from embedkit.machine import num_cores

        if self.threads is not None:
            return self.threads
        return 1 if self.executor == "ray" else max(1, num_cores() // (self.workers or 1))

    def check(self) -> None:
        """Refuse options that exclude each other.

        Raises:
            BadParameter: some do.
        """
        if self.gpus_per_worker and self.executor == "local":
            raise typer.BadParameter(
                "--gpus-per-worker is of --executor ray; local workers share a GPU with --device cuda"
            )

    def start(self) -> WorkerStart:
        """Return what runs the workers."""
        memory = None if self.memory_per_worker is None else parse_bytes(self.memory_per_worker)
        cluster = None
        if self.executor == "ray":
            from embedkit.distributed.ray_workers import RayCluster

            cluster = RayCluster(self.address, workers=self.workers, gpus=self.gpus_per_worker)
        return WorkerStart(self, options.seconds(self.worker_timeout), memory, cluster)


@dataclass(frozen=True)
class WorkerStart:
    """What runs the workers: this machine, or a cluster."""

    wanted: Sharding
    timeout_seconds: float
    memory_bytes: int | None
    cluster: RayCluster | None

    @property
    def resolve(self) -> Resolve:
        """What decides how shards are computed: where workers have GPUs, one of them."""
        from embedkit.distributed.resolving import resolve

        if self.cluster is None or not self.wanted.gpus_per_worker:
            return resolve
        return self.cluster.resolve

    def build(self, folder: Path, plan: ShardPlan) -> ShardedBuild:
        from embedkit.distributed.building import ShardedBuild
        from embedkit.distributed.executor import WorkerOptions

        given = WorkerOptions(
            threads=plan.computed.threads,
            timeout_seconds=self.timeout_seconds,
            memory_bytes=self.memory_bytes,
        )
        return ShardedBuild(folder, plan, self._make, given)

    def _make(self, folder: Path, given: WorkerOptions) -> Executor:
        if self.cluster is not None:
            return self.cluster.executor(folder, given)
        from embedkit.distributed.local import LocalExecutor

        return LocalExecutor(folder, given, workers=self.wanted.workers or 1)
