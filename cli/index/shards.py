"""`embedkit index build --shards`: the options, the one live view over all workers, and what is said at the end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

import typer

from ..shared import console, options
from ..shared.options import TUNING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedkit.distributed.building import ShardedBuild, Summary
    from embedkit.distributed.driver import Status
    from embedkit.distributed.executor import Executor, WorkerOptions
    from embedkit.distributed.plan import ShardPlan
    from embedkit.distributed.planning import ShardRequest
    from embedkit.distributed.receipts import Receipt

    from .source import Building, VectorSource

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_Kind = TypeVar("_Kind")
SHOWN = 10  # shards or texts that are named


def parse_bytes(text: str) -> int:
    """Read a size such as 512M or 8G, as the value of an option."""
    found = re.fullmatch(r"(\d+)([kmgt]?)(?:i?b)?", text.strip().lower())
    if found is None or not int(found[1]):
        raise typer.BadParameter(f"{text!r} is no size; write it as 512M or 8G")
    return int(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How an index is made in shards, and by which workers."""

    PANEL: ClassVar[str] = "Shards and workers"

    shards: Annotated[
        int | None,
        typer.Option(
            "--shards",
            metavar="N",
            min=1,
            max=99_999,
            help="Cut the input into up to N shards, an index each, that workers build.",
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
            help="How many build at once. Default: local 1, ray as many as the cluster has room for.",
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


def refuse_sharded(index: Path) -> None:
    """Refuse to build in one piece where an index in shards is.

    Raises:
        IndexFileError: it is one.
    """
    from embedkit.distributed.layout import is_planned
    from embedkit.errors import IndexFileError

    if is_planned(index):
        raise IndexFileError(
            f"{index}: is an index in shards. Give the command that built it, with --shards, or choose another folder"
        )


def make_request(
    inputs: list[str] | None,
    given: VectorSource,
    building: Building,
    sharding: Sharding,
    *,
    reading: options.Reading,
    walking: options.Walking,
    computing: options.ComputingOptions,
    merge_tokens: float | None,
) -> ShardRequest:
    """Return what is to be planned, or end with wrong usage."""
    from embedkit.data.records import ReadOptions
    from embedkit.data.walking import WalkOptions
    from embedkit.distributed.planning import ShardRequest
    from embedkit.pipelines.options import BuildOptions
    from embedkit.types import Computing

    if given.vectors is not None or given.ids is not None:
        raise typer.BadParameter("--vectors are there already; shards are for texts. Leave out --shards")
    if not inputs:
        raise typer.BadParameter("name an INPUT")
    if building.sync:
        raise typer.BadParameter(
            "--sync is of one index; build a new index in shards where its input has changed"
        )
    if sharding.gpus_per_worker and sharding.executor == "local":
        raise typer.BadParameter(
            "--gpus-per-worker is of --executor ray; local workers share a GPU with --device cuda"
        )
    assert sharding.shards is not None
    return ShardRequest(
        inputs=inputs,
        reading=_plain(reading, ReadOptions),
        walking=WalkOptions(ignore=not walking.no_ignore, hidden=walking.hidden, kinds="any"),
        building=_plain(building, BuildOptions),
        computing=_plain(computing, Computing),
        shards=sharding.shards,
        threads=sharding.num_threads(),
        model=given.model,
        merge_tokens=merge_tokens or 0.0,
        strict=building.strict,
        allow_other=sharding.allow_other,
    )


def _plain(given: object, kind: type[_Kind]) -> _Kind:
    """Return the part of a group of options that the library knows."""
    from dataclasses import fields

    return kind(**{each.name: getattr(given, each.name) for each in fields(kind)})  # type: ignore[arg-type]


def build_shards(index: Path, request: ShardRequest, sharding: Sharding, printing: options.Printing) -> None:
    """ShardPlan, build what is missing, and say what came of it."""
    from embedkit.distributed.building import ShardedBuild
    from embedkit.distributed.executor import WorkerOptions
    from embedkit.distributed.planning import planned, resolve

    memory = None if sharding.memory_per_worker is None else parse_bytes(sharding.memory_per_worker)
    timeout = options.seconds(sharding.worker_timeout)
    elsewhere = None
    if sharding.executor == "ray":
        from embedkit.distributed.ray_workers import RayCluster

        elsewhere = RayCluster(sharding.address, workers=sharding.workers, gpus=sharding.gpus_per_worker)
    ask = resolve if elsewhere is None or not sharding.gpus_per_worker else elsewhere.resolve

    def make(folder: Path, workers: WorkerOptions) -> Executor:
        if elsewhere is not None:
            return elsewhere.executor(folder, workers)
        from embedkit.distributed.local import LocalExecutor

        return LocalExecutor(folder, workers, workers=sharding.workers or 1)

    try:
        with planned(index, request, ask) as plan:
            workers = WorkerOptions(
                threads=plan.computed.threads, timeout_seconds=timeout, memory_bytes=memory
            )
            build = ShardedBuild(index, plan, make, workers)
            _say_plan(index, plan)
            summary = _watch(build, index)
            (_print if printing.as_json else _say)(index, plan, build, summary)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    if summary.failed or summary.unread:
        raise typer.Exit(1)


def _say_plan(index: Path, plan: ShardPlan) -> None:
    size = sum(plan.bytes_of(shard) for shard in range(len(plan.shards)))
    computed = plan.computed
    console.note(
        f"{index}: {console.counted(len(plan.inputs), 'file')}, {size / 1e6:,.1f} MB in {console.counted(len(plan.shards), 'shard')}; "
        f"{computed.precision} by {computed.backend} on {computed.device}"
    )
    if not computed.exact and console.is_verbose():
        console.note(
            f"{computed.backend} rounds a text's numbers by what stands beside it: these vectors are the same for any workers, "
            "but differ from those of other cuts in the last bits"
        )


def _watch(build: ShardedBuild, index: Path) -> Summary:
    try:
        with console.progress_bar("shards") as bar:
            for status in build.run():
                bar.update(status.fraction, described(status))
    except KeyboardInterrupt:
        done = len(build.status.done)
        console.tell(
            f"interrupted; {done:,} of {console.counted(build.status.total, 'shard')} done in {index}. Go on with the same command:\n  {console.command_line()}"
        )
        raise typer.Exit(console.INTERRUPTED) from None
    return build.summary()


def described(status: Status) -> str:
    """Say in a line how far all workers are."""
    seconds = status.seconds or 1.0
    parts = [f"{len(status.done):,}/{status.total:,} done", console.counted(status.running, "worker")]
    if status.running and not status.passages:
        parts.append("starting")
    else:
        parts += [f"{status.passages / seconds:,.0f} texts/s", f"{status.tokens / seconds:,.0f} tokens/s"]
    if status.slow:
        parts.append(f"slow: {', '.join(status.slow[:3])}")
    if status.failed:
        parts.append(f"{len(status.failed):,} failed")
    return "  ".join(parts)


_COUNTS = ("documents", "passages", "tokens", "truncated", "empty", "unknown", "duplicates", "quarantined")


def _print(index: Path, plan: ShardPlan, build: ShardedBuild, summary: Summary) -> None:
    status, computed = build.status, plan.computed
    console.print_json(
        {
            "index": str(index),
            "plan": plan.digest,
            "model": Path(plan.model_path).name,
            "precision": computed.precision,
            "backend": computed.backend,
            "device": computed.device,
            "exact": computed.exact,
            "shards": status.total,
            "done": len(summary.receipts),
            "done_before": status.found,
            **{name: summary.total(name) for name in _COUNTS},
            "unread": list(plan.unread),
            "failed": {f"{shard:05d}": reason for shard, reason in sorted(summary.failed.items())},
            "retried": [{"shard": f"{each.shard:05d}", "reason": each.reason} for each in status.retried],
            "refused": [each.reason for each in status.refused],
            "built_again": {f"{shard:05d}": reason for shard, reason in sorted(summary.lies.items())},
            "not_as_planned": [f"{each.shard:05d}" for each in _others(summary)],
            "seconds": round(status.seconds, 3),
        }
    )


def _others(summary: Summary) -> Iterator[Receipt]:
    return (each for each in summary.receipts.values() if not each.as_planned)


def _say(index: Path, plan: ShardPlan, build: ShardedBuild, summary: Summary) -> None:
    status = build.status
    for shard, reason in list(summary.lies.items())[:SHOWN]:
        console.warn(f"shard {shard:05d} was built again: {reason}")
    for refused in {each.reason for each in status.refused}:
        console.warn(refused)
    for event in status.retried[:SHOWN]:
        console.note(f"shard {event.shard:05d} was tried again: {event.reason}")
    rate = f" ({status.passages / status.seconds:,.0f} passages/s)" if status.seconds else ""
    console.note(
        f"{index}: {len(summary.receipts):,} of {console.counted(status.total, 'shard')}, {status.found:,} done before; "
        f"{console.counted(summary.total('documents'), 'document')}, {console.counted(summary.total('passages'), 'vector')}; "
        f"{status.seconds:,.1f} s{rate}, model {Path(plan.model_path).name}"
    )
    if others := list(_others(summary)):
        console.warn(
            f"{console.counted(len(others), 'shard')} not computed as planned; their receipts say how"
        )
    if empty := summary.total("empty"):
        console.warn(f"{console.counted(empty, 'document')} without text, which no search can find")
    if truncated := summary.total("truncated"):
        console.warn(f"{console.counted(truncated, 'passage')} cut to what the model reads")
    if summary.unread:
        console.tell(
            f"not read: {console.counted(summary.unread, 'text')}, named in {index / 'quarantine.jsonl'}"
        )
    for shard, reason in sorted(summary.failed.items())[:SHOWN]:
        console.tell(f"shard {shard:05d} failed: {reason}")
    if summary.failed:
        console.tell(
            f"{console.counted(len(summary.failed), 'shard')} missing; the same command tries them again:\n  {console.command_line()}"
        )
