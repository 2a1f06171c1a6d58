"""`embedkit index build --shards`: what is asked for, and what is said at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..shared import console, options, sharded_view
from ..shared.sharding import plain

if TYPE_CHECKING:
    from embedkit.distributed.building import ShardedBuild, Summary
    from embedkit.distributed.plan import ShardPlan
    from embedkit.distributed.requests import ShardRequest
    from indexes import Kind
    from indexes.types import Storage

    from ..shared.sharding import Sharding
    from .source import Building, VectorSource


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
    wanted: Sharding,
    *,
    reading: options.Reading,
    walking: options.Walking,
    computing: options.ComputingOptions,
    merge_tokens: float | None,
    kind: Kind,
) -> ShardRequest:
    """Return what is to be planned, or end with wrong usage."""
    from embedkit.data.records import ReadOptions
    from embedkit.data.walking import WalkOptions
    from embedkit.distributed.requests import ShardRequest
    from embedkit.pipelines.models import kind_of_model, or_default
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
    wanted.check()
    assert wanted.shards is not None
    # As the plans of earlier releases say; of other kinds each has storage of its own.
    usual: Storage | None = "float32" if kind_of_model(or_default(given.model)) == "dense" else None
    return ShardRequest(
        inputs=inputs,
        reading=plain(reading, ReadOptions),
        walking=WalkOptions(ignore=not walking.no_ignore, hidden=walking.hidden, kinds="any"),
        building=replace(plain(building, BuildOptions), storage=building.storage or usual),
        computing=plain(computing, Computing),
        shards=wanted.shards,
        threads=wanted.num_threads(),
        model=given.model,
        merge_tokens=merge_tokens or 0.0,
        strict=building.strict,
        allow_other=wanted.allow_other,
        kind=kind,
    )


def build_shards(index: Path, request: ShardRequest, wanted: Sharding, printing: options.Printing) -> None:
    """Plan, build what is missing, and say what came of it."""
    from embedkit.distributed.planning import planned

    workers = wanted.start()
    try:
        with planned(index, request, workers.resolve) as plan:
            build = workers.build(index, plan)
            sharded_view.say_plan(index, plan)
            summary = sharded_view.watch(build, index)
            (_print if printing.as_json else _say)(index, plan, build, summary)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    if summary.failed or summary.unread:
        raise typer.Exit(1)


_COUNTS = ("documents", "passages", "tokens", "truncated", "empty", "unknown", "duplicates", "quarantined")


def _print(index: Path, plan: ShardPlan, build: ShardedBuild, summary: Summary) -> None:
    console.print_json(
        {
            "index": str(index),
            **sharded_view.as_json(plan, build, summary),
            **{name: summary.total(name) for name in _COUNTS},
            "unread": list(plan.unread),
        }
    )


def _say(index: Path, plan: ShardPlan, build: ShardedBuild, summary: Summary) -> None:
    status = build.status
    sharded_view.say_troubles(build, summary)
    rate = f" ({status.passages / status.seconds:,.0f} passages/s)" if status.seconds else ""
    console.note(
        f"{index}: {len(summary.receipts):,} of {console.counted(status.total, 'shard')}, {status.found:,} done before; "
        f"{console.counted(summary.total('documents'), 'document')}, {console.counted(summary.total('passages'), 'vector')}; "
        f"{status.seconds:,.1f} s{rate}, model {Path(plan.model_path).name}"
    )
    if empty := summary.total("empty"):
        console.warn(f"{console.counted(empty, 'document')} without text, which no search can find")
    if truncated := summary.total("truncated"):
        console.warn(f"{console.counted(truncated, 'passage')} cut to what the model reads")
    if summary.unread:
        console.tell(
            f"not read: {console.counted(summary.unread, 'text')}, named in {index / 'quarantine.jsonl'}"
        )
    sharded_view.say_failed(summary)
