"""Work in shards: the one live view over all workers, and what is said at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from . import console

if TYPE_CHECKING:
    from embedkit.distributed.building import ShardedBuild, Summary
    from embedkit.distributed.driver import Status
    from embedkit.distributed.plan import ShardPlan
    from embedkit.distributed.receipts import Receipt

SHOWN = 10  # shards that are named


def say_plan(shown: Path, plan: ShardPlan) -> None:
    size = sum(plan.size_of(shard) for shard in range(plan.num_shards))
    what = f"{console.counted(len(plan.inputs), 'file')}, {size / 1e6:,.1f} MB"
    if plan.mining:
        what = console.counted(size, "row")
    computed = plan.computed
    how = f"; {computed.precision} by {computed.backend} on {computed.device}" if computed.backend else ""
    console.note(f"{shown}: {what} in {console.counted(plan.num_shards, 'shard')}{how}")
    if not computed.exact and console.is_verbose():
        console.note(
            f"{computed.backend} rounds a text's numbers by what stands beside it: what is made here is the same for any workers, "
            "but may differ from that of other cuts in the last bits"
        )


def watch(build: ShardedBuild, shown: Path) -> Summary:
    """Run it with one line that shows all workers; Ctrl-C says how to go on."""
    try:
        with console.progress_bar("shards") as bar:
            for status in build.run():
                bar.update(status.fraction, described(status, "rows" if build.plan.mining else "texts"))
    except KeyboardInterrupt:
        done = len(build.status.done)
        console.tell(
            f"interrupted; {done:,} of {console.counted(build.status.total, 'shard')} done in {shown}. Go on with the same command:\n  {console.command_line()}"
        )
        raise typer.Exit(console.INTERRUPTED) from None
    return build.summary()


def described(status: Status, unit: str = "texts") -> str:
    """Say in a line how far all workers are."""
    seconds = status.seconds or 1.0
    parts = [f"{len(status.done):,}/{status.total:,} done", console.counted(status.running, "worker")]
    if status.running and not status.passages:
        parts.append("starting")
    else:
        parts.append(f"{status.passages / seconds:,.0f} {unit}/s")
        if status.tokens:
            parts.append(f"{status.tokens / seconds:,.0f} tokens/s")
    if status.slow:
        parts.append(f"slow: {', '.join(status.slow[:3])}")
    if status.failed:
        parts.append(f"{len(status.failed):,} failed")
    return "  ".join(parts)


def not_as_planned(summary: Summary) -> Iterator[Receipt]:
    return (each for each in summary.receipts.values() if not each.as_planned)


def as_json(plan: ShardPlan, build: ShardedBuild, summary: Summary) -> dict[str, Any]:  # Any: JSON
    """Return what is said of any work in shards."""
    status, computed = build.status, plan.computed
    return {
        "plan": plan.digest,
        "model": Path(plan.model_path).name,
        "precision": computed.precision,
        "backend": computed.backend,
        "device": computed.device,
        "exact": computed.exact,
        "shards": status.total,
        "done": len(summary.receipts),
        "done_before": status.found,
        "failed": {f"{shard:05d}": reason for shard, reason in sorted(summary.failed.items())},
        "retried": [{"shard": f"{each.shard:05d}", "reason": each.reason} for each in status.retried],
        "copied": [f"{shard:05d}" for shard in status.copied],
        "refused": [each.reason for each in status.refused],
        "built_again": {f"{shard:05d}": reason for shard, reason in sorted(summary.lies.items())},
        "not_as_planned": [f"{each.shard:05d}" for each in not_as_planned(summary)],
        "seconds": round(status.seconds, 3),
    }


def say_troubles(build: ShardedBuild, summary: Summary) -> None:
    """Say what was done again, refused, or not computed as planned."""
    for shard, reason in list(summary.lies.items())[:SHOWN]:
        console.warn(f"shard {shard:05d} was built again: {reason}")
    for refused in {each.reason for each in build.status.refused}:
        console.warn(refused)
    for event in build.status.retried[:SHOWN]:
        console.note(f"shard {event.shard:05d} was tried again: {event.reason}")
    if others := list(not_as_planned(summary)):
        console.warn(
            f"{console.counted(len(others), 'shard')} not computed as planned; their receipts say how"
        )


def say_failed(summary: Summary) -> None:
    for shard, reason in sorted(summary.failed.items())[:SHOWN]:
        console.tell(f"shard {shard:05d} failed: {reason}")
    if summary.failed:
        console.tell(
            f"{console.counted(len(summary.failed), 'shard')} missing; the same command tries them again:\n  {console.command_line()}"
        )
