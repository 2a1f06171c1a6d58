"""What shards, workers and receipts cost, and how a driver of many workers fares.

    python benchmarks/shards.py build TEXTS.jsonl [--texts 100000] [--model NAME] [--shards 16] [--workers 2] [--ray]
        [--precision fp32] [--ways piece local-1 local ray] [--output FILE.json]
    python benchmarks/shards.py resume [--receipts 100000] [--read 10000] [--output FILE.json]
    python benchmarks/shards.py simulate [--shards 10000] [--workers 1000] [--output FILE.json]

`build` embeds the first texts of a file of JSON lines as an index in one piece, in shards by one local worker, by several, and with
--ray by as many on Ray; the processor's threads are shared among them. The overhead is in seconds to the build in one piece. `--ways` takes some of
these alone, where all of them take too long for one run.

`resume` writes a plan of one-document shards, copies one built index and receipt under all their names, and measures how long the
driver takes to find all of them done: with the files it knows, and some of them with the index read anew.

`simulate` runs the real driver on workers that only pretend, in their own time: shards of 600 s on the average (log-normal), 1% of the
tries fail half-way, 1% of the workers die each hour and are replaced after 60 s, 2% are stragglers at a third of the speed. The ideal is
all the work, spread evenly over all workers without a failure.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from embedkit.distributed.building import find_done
from embedkit.distributed.driver import Status, drive
from embedkit.distributed.executor import Done, Event, Failed
from embedkit.distributed.layout import ids_path, receipt_path, shard_path
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.planning import planned
from embedkit.distributed.receipts import Receipt, signature
from embedkit.distributed.requests import ShardRequest
from embedkit.distributed.shard import ShardBuilder
from embedkit.machine import num_cores
from embedkit.storage.hashing import canonical_json, json_digest

WAYS = ("piece", "local-1", "local", "ray")
MOST_LINKS = 10_000  # to one file; ext4 takes 65,000
MEAN_SECONDS, SPREAD = 600.0, 0.4
FAILS, DIES_PER_HOUR, RESTART_SECONDS, SLOW_SHARE, SLOWNESS = 0.01, 0.01, 60.0, 0.02, 3.0


def measure_build(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        texts = folder / "texts.jsonl"
        with args.file.open(encoding="utf-8") as source, texts.open("w", encoding="utf-8") as target:
            target.writelines(islice(source, args.texts))
        chosen = [*args.ways, *(["ray"] if args.ray and "ray" not in args.ways else [])]
        many = ["--shards", args.shards, "--workers", args.workers]
        local: dict[str, tuple[str, list[Any]]] = {
            "piece": ("one piece", []),
            "local-1": ("1 local worker", ["--shards", args.shards, "--workers", 1]),
            "local": (f"{args.workers} local workers", many),
        }
        ways = [local[way] for way in chosen if way != "ray"]
        if "ray" in chosen:
            threads = max(1, num_cores() // args.workers)
            ray = [*many, "--executor", "ray", "--threads-per-worker", threads]
            ways.append((f"{args.workers} Ray workers", ray))
        usual = 0.0
        for number, (name, words) in enumerate(ways):
            command = [
                sys.executable,
                "-m",
                "cli",
                "index",
                "build",
                texts,
                "--index",
                folder / f"{number}.index",
            ]
            command += ["-m", args.model, "--precision", args.precision, "--json", *words]
            begun = time.perf_counter()
            output, processor = run_counted([str(word) for word in command])
            seconds = time.perf_counter() - begun
            usual = usual or (seconds if name == "one piece" else 0.0)
            passages = json.loads(output)["passages"]
            yield {
                "way": name,
                "seconds": round(seconds, 2),
                "processor_seconds": round(processor, 1),
                "passages": passages,
                "passages_per_second": round(passages / seconds, 1),
                "to_one_piece": round(seconds / usual, 3) if usual else None,
            }


def run_counted(command: Sequence[str]) -> tuple[str, float]:
    """Run a command; return what it prints, and the processor time of all processes that come of it.

    Ray's are nobody's children, so all are told by a variable in their environment, four times a second.
    """
    mark = f"EMBEDKIT_BENCHMARK={uuid4().hex}"
    name, _, value = mark.partition("=")
    used: dict[int, float] = {}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, name: value}
    ) as process:
        while process.poll() is None:
            time.sleep(0.25)
            for each in psutil.process_iter():
                with suppress(psutil.Error, OSError):
                    if each.environ().get(name) == value:
                        times = each.cpu_times()
                        used[each.pid] = times.user + times.system
        output = "" if process.stdout is None else process.stdout.read()
    if process.returncode:
        raise SystemExit(process.returncode)
    return output, sum(used.values())


def measure_resume(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "big.index"
        plan = _one_shard(Path(temporary), folder, args.model)
        _multiply(folder, plan, args.receipts)
        for what, count in (
            ("known files", args.receipts),
            ("every index read", min(args.read, args.receipts)),
        ):
            begun = time.perf_counter()
            found = [each for some in find_done(folder, plan, count) for each in some.values()]
            seconds = time.perf_counter() - begun
            assert len(found) == count
            assert all(isinstance(each, Receipt) for each in found)
            yield {
                "what": what,
                "receipts": count,
                "seconds": round(seconds, 2),
                "per_second": round(count / seconds),
            }
            for shard in range(min(args.read, args.receipts)):
                os.utime(shard_path(folder, shard) / "index.sqlite")


def _one_shard(temporary: Path, folder: Path, model: str) -> ShardPlan:
    from embedkit.data.records import ReadOptions
    from embedkit.data.walking import WalkOptions
    from embedkit.pipelines.options import BuildOptions
    from embedkit.types import Computing

    texts = temporary / "a.jsonl"
    texts.write_text('{"id": "a", "text": "the dog runs"}\n', encoding="utf-8")
    request = ShardRequest(
        inputs=[str(texts)],
        reading=ReadOptions(),
        walking=WalkOptions(kinds="any"),
        building=BuildOptions(),
        computing=Computing(precision="fp32"),
        shards=1,
        threads=1,
        model=model,
    )
    with planned(folder, request) as plan:
        ShardBuilder(folder).build(0, lambda progress: None)
        return plan


def _multiply(folder: Path, plan: ShardPlan, count: int) -> None:
    """Make many shards of one, each with a receipt of its own; files that never change are links."""
    first = Receipt.read(folder, 0)
    for shard in range(1, count):
        linked = shard - shard % MOST_LINKS
        give = os.link if shard % MOST_LINKS else shutil.copy
        source, target = shard_path(folder, linked if shard % MOST_LINKS else 0), shard_path(folder, shard)
        (target / "segments").mkdir(parents=True)
        for path in (source / "segments").iterdir():
            give(path, target / "segments" / path.name)
        shutil.copy(shard_path(folder, 0) / "index.sqlite", target)
        give(ids_path(folder, linked if shard % MOST_LINKS else 0), ids_path(folder, shard))
    for shard in range(count):  # after all links, each of which changes the file's ctime
        content = replace(first, shard=shard, files=signature(shard_path(folder, shard)))
        path = receipt_path(folder, shard)
        path.unlink(missing_ok=True)
        # As `Receipt.write`, but not flushed to the disk each.
        values = json.loads(canonical_json(asdict(content)))
        path.write_text(canonical_json({**values, "digest": json_digest(values)}) + "\n", encoding="utf-8")


class PretendedWorkers:
    """Workers in a time of their own; see the module."""

    def __init__(self, shards: int, workers: int, seed: int) -> None:
        drawn = self.drawn = random.Random(seed)
        self.work = [MEAN_SECONDS * drawn.lognormvariate(-(SPREAD**2) / 2, SPREAD) for _ in range(shards)]
        self.speed = [1 / SLOWNESS if drawn.random() < SLOW_SHARE else 1.0 for _ in range(workers)]
        self.free = list(range(workers))
        self.flying: list[tuple[float, int, int, str]] = []  # end, worker, shard, what becomes of it
        self.now, self.wasted, self.count = 0.0, 0.0, workers

    @property
    def room(self) -> int:
        return len(self.free)

    @property
    def workers(self) -> int:
        return self.count

    def submit(self, shard: int, *, avoid: str = "") -> None:
        place = next((at for at, worker in enumerate(self.free) if str(worker) != avoid), 0)
        worker = self.free.pop(place)
        seconds, outcome = self.work[shard] / self.speed[worker], "done"
        if self.drawn.random() < FAILS + DIES_PER_HOUR * seconds / 3600:
            seconds, outcome = seconds * self.drawn.random() + RESTART_SECONDS, "failed"
            self.wasted += seconds
        heapq.heappush(self.flying, (self.now + seconds, worker, shard, outcome))

    def as_completed(self, seconds: float) -> Iterable[Event]:
        self.now, worker, shard, outcome = heapq.heappop(self.flying)
        self.free.append(worker)
        if outcome == "failed":
            return [Failed(str(worker), shard, "it died", str(worker))]
        return [Done(str(worker), Receipt(shard=shard, plan="", documents=1, passages=1, content_hash=""))]

    def cancel(self) -> None:
        """There is nothing to stop."""


def simulate(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    for attempts in (2, 3):
        workers = PretendedWorkers(args.shards, args.workers, args.seed)
        status = Status(args.shards)
        begun = time.perf_counter()
        now = partial(getattr, workers, "now")
        sizes = [1] * args.shards
        for _ in drive(workers, range(args.shards), status, sizes=sizes, attempts=attempts, clock=now):
            if len(status.done) + len(status.failed) == args.shards:
                break  # the driver ends what other copies do
        ideal = sum(workers.work) / args.workers
        yield {
            "shards": args.shards,
            "workers": args.workers,
            "attempts": attempts,
            "makespan_hours": round(workers.now / 3600, 3),
            "ideal_hours": round(ideal / 3600, 3),
            "ratio": round(workers.now / ideal, 3),
            "retried": len(status.retried),
            "copied": len(status.copied),
            "failed": len(status.failed),
            "wasted_share": round(workers.wasted / sum(workers.work), 4),
            "driver_seconds": round(time.perf_counter() - begun, 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build")
    build.add_argument("file", type=Path)
    build.add_argument("--texts", type=int, default=100_000)
    build.add_argument("--shards", type=int, default=16)
    build.add_argument("--workers", type=int, default=2)
    build.add_argument("--precision", default="fp32")
    build.add_argument("--ways", nargs="*", choices=WAYS, default=["piece", "local-1", "local"])
    build.add_argument("--ray", action="store_true")
    resume = commands.add_parser("resume")
    resume.add_argument("--receipts", type=int, default=100_000)
    resume.add_argument("--read", type=int, default=10_000, help="how many of the indexes are read anew")
    pretended = commands.add_parser("simulate")
    pretended.add_argument("--shards", type=int, default=10_000)
    pretended.add_argument("--workers", type=int, default=1000)
    pretended.add_argument("--seed", type=int, default=0)
    for each in (build, resume, pretended):
        each.add_argument("--output", type=Path)
    for each in (build, resume):
        each.add_argument("--model", default="embedkit-small")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    run = {"build": measure_build, "resume": measure_resume, "simulate": simulate}[args.command]
    for row in run(args):
        rows.append(row)
        print(json.dumps(row), flush=True)
    if args.output is not None:
        args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
