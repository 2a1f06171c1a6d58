"""Ray: nodes and workers that die, hang or cannot; three nodes of one cluster on this machine."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from embedkit.distributed.building import ShardedBuild, Summary
from embedkit.distributed.executor import Done, Event, Executor, Failed, Refused, WorkerOptions
from embedkit.distributed.planning import planned
from embedkit.distributed.requests import ShardRequest
from embedkit.errors import DeviceError
from embedkit.extras import has_extra
from tests.distributed import hashes, request, written_at
from tests.distributed.test_identity import run
from tests.distributed.test_planning import rewrite

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        not has_extra("ray"), reason="the package ray is not installed: pip install 'embedkit[ray]'"
    ),
]


@pytest.fixture
def cluster() -> Iterator[Any]:  # Any: Ray's
    """Three nodes with a CPU each."""
    from ray.cluster_utils import Cluster  # the test's own, not through the extras

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def build(
    folder: Path, asked: ShardRequest, address: str, meanwhile: Any = None, **options: Any
) -> Summary:  # Any: see below
    """Build on a cluster; `meanwhile` is called with each status."""
    from embedkit.distributed.ray_workers import RayCluster

    def make(folder: Path, options: WorkerOptions) -> Executor:
        return RayCluster(address, workers=3).executor(folder, options)

    with planned(folder, asked) as plan:
        found = ShardedBuild(folder, plan, make, WorkerOptions(threads=1, **options))
        for status in found.run():
            if meanwhile is not None:
                meanwhile(status)
        return found.summary()


def test_three_nodes_give_the_bits_of_one_process_and_one_that_goes_away_loses_nothing(
    tmp_path: Path, corpus: list[Path], static_model: Path, cluster: Any
) -> None:
    asked = request(corpus, static_model, shards=12)
    run(tmp_path / "one", asked)
    summary = build(tmp_path / "three", asked, cluster.address)
    assert summary.complete, summary.failed
    assert hashes(tmp_path / "three") == hashes(tmp_path / "one")
    gone: list[object] = []

    def lose_a_node(status: Any) -> None:
        if status.done and not gone:
            gone.append(next(iter(cluster.worker_nodes)))
            cluster.remove_node(gone[0], allow_graceful=False)

    summary = build(tmp_path / "two", asked, cluster.address, lose_a_node)
    assert gone
    assert summary.complete, summary.failed
    assert hashes(tmp_path / "two") == hashes(tmp_path / "one")


def test_a_driver_that_stops_is_followed_by_another_that_goes_on(
    tmp_path: Path, corpus: list[Path], static_model: Path, cluster: Any
) -> None:
    asked = request(corpus, static_model, shards=6)

    def stop(status: Any) -> None:
        if len(status.done) >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "big", asked, cluster.address, stop)
    done = {
        int(path.stem): written_at(tmp_path / "big", int(path.stem))
        for path in (tmp_path / "big" / "receipts").glob("*.json")
    }
    assert len(done) >= 2
    assert build(tmp_path / "big", asked, cluster.address).complete
    assert {shard: written_at(tmp_path / "big", shard) for shard in done} == done
    run(tmp_path / "one", asked)
    assert hashes(tmp_path / "big") == hashes(tmp_path / "one")


def outcome(executor: Any) -> Event:
    ends = time.monotonic() + 180
    while time.monotonic() < ends:
        for event in executor.as_completed(1.0):
            if isinstance(event, Done | Failed | Refused):
                return event
    raise AssertionError("nothing came of the shard")


def test_workers_that_are_killed_or_hang_lose_their_shard_and_the_next_try_is_on_another_node(
    tmp_path: Path, corpus: list[Path], static_model: Path, cluster: Any
) -> None:
    from embedkit.distributed.ray_workers import RayCluster

    with planned(tmp_path / "big", request(corpus, static_model)):
        executor = RayCluster(cluster.address, workers=3).executor(
            tmp_path / "big", WorkerOptions(threads=1, timeout_seconds=20)
        )
        try:
            executor.submit(0)
            assert isinstance(outcome(executor), Done)
            (worker,) = executor._workers
            os.kill(executor._ray.answer(executor._ray.call(worker.handle, "process")), signal.SIGKILL)
            executor.submit(1)
            event = outcome(executor)
            assert isinstance(event, Failed)
            assert "it died:" in event.reason
            assert event.place == worker.node
            executor.submit(1, avoid=event.place)
            assert isinstance(outcome(executor), Done)
            (worker,) = executor._workers
            assert worker.node != event.place
            os.kill(executor._ray.answer(executor._ray.call(worker.handle, "process")), signal.SIGSTOP)
            executor._options = WorkerOptions(threads=1, timeout_seconds=3)
            executor.submit(2)
            event = outcome(executor)
            assert isinstance(event, Failed)
            assert "nothing was heard of it" in event.reason
        finally:
            executor.cancel()


def test_a_full_disk_on_one_node_fails_the_shard_there_and_another_node_builds_it(
    tmp_path: Path, corpus: list[Path], static_model: Path, cluster: Any
) -> None:
    """The system lets the worker write no file of more than 30,000 bytes, as a disk would that has no more."""
    from embedkit.distributed.ray_workers import RayCluster

    asked = request(corpus, static_model)
    with planned(tmp_path / "big", asked):
        executor = RayCluster(cluster.address, workers=3).executor(
            tmp_path / "big", WorkerOptions(threads=1, timeout_seconds=60)
        )
        try:
            executor.submit(0)
            assert isinstance(outcome(executor), Done)
            (worker,) = executor._workers
            process = executor._ray.answer(executor._ray.call(worker.handle, "process"))
            resource.prlimit(process, resource.RLIMIT_FSIZE, (30_000, 30_000))
            executor.submit(1)
            event = outcome(executor)
            assert isinstance(event, Failed)
            assert re.search(r"[Mm]ake room|disk I/O error|the disk", event.reason)
            assert event.place == worker.node
            assert not (tmp_path / "big/receipts/00001.json").exists()
            executor.submit(1, avoid=event.place)
            assert isinstance(outcome(executor), Done)
        finally:
            executor.cancel()
    assert build(tmp_path / "big", asked, cluster.address).complete
    run(tmp_path / "one", asked)
    assert hashes(tmp_path / "big") == hashes(tmp_path / "one")


def test_a_node_that_nobody_hears_of_loses_its_shards_and_does_no_harm_when_it_is_back(
    tmp_path: Path, corpus: list[Path], static_model: Path, cluster: Any
) -> None:
    """All processes of a node stop, as one looks that the network is cut off from; later they go on with what they were at."""
    asked = request(corpus, static_model, shards=12)
    stopped: list[int] = []

    def cut_off(status: Any) -> None:
        if status.done and not stopped:
            node = next(iter(cluster.worker_nodes))
            raylet = node.all_processes["raylet"][0].process.pid
            stopped.extend([raylet, *_below(raylet)])
            for process in stopped:
                os.kill(process, signal.SIGSTOP)

    try:
        summary = build(tmp_path / "big", asked, cluster.address, cut_off, timeout_seconds=25.0)
    finally:
        for process in stopped:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
    assert stopped
    assert summary.complete, summary.failed
    time.sleep(3.0)  # for whatever was stopped to end what it was at
    run(tmp_path / "one", asked)
    assert hashes(tmp_path / "big") == hashes(tmp_path / "one")
    assert run(tmp_path / "big", asked).lies == {}


def _below(parent: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == parent:
                child = int(path.parent.name)
                found += [child, *_below(child)]
    return found


def test_a_worker_of_another_version_refuses_with_the_reason(
    tmp_path: Path, corpus: list[Path], static_model: Path, cluster: Any
) -> None:
    asked = request(corpus, static_model)
    with planned(tmp_path / "big", asked):
        pass
    rewrite(tmp_path / "big", embedkit="9.9")
    from embedkit.distributed.plan import ShardPlan
    from embedkit.distributed.ray_workers import RayCluster

    make = RayCluster(cluster.address, workers=2).executor
    found = ShardedBuild(tmp_path / "big", ShardPlan.read(tmp_path / "big"), make, WorkerOptions(threads=1))
    with pytest.raises(DeviceError, match=r"no worker can build these shards: .* the plan was made by 9\.9"):
        list(found.run())


def test_a_worker_that_the_cluster_has_no_room_for_keeps_no_shard(
    tmp_path: Path, corpus: list[Path], static_model: Path, cluster: Any
) -> None:
    import ray

    class Other:
        """Somebody else's."""

    ray.init(address=cluster.address, log_to_driver=False)
    other = ray.remote(Other).options(num_cpus=1).remote()
    ray.get(other.__ray_ready__.remote())
    asked = request(corpus, static_model, shards=5)
    summary = build(tmp_path / "big", asked, cluster.address)
    assert summary.complete, summary.failed


def test_a_cluster_without_room_and_one_that_is_not_there_are_told(tmp_path: Path, cluster: Any) -> None:
    from embedkit.distributed.ray_workers import RayCluster

    with pytest.raises(DeviceError, match="no node of the cluster has 99 CPUs"):
        RayCluster(cluster.address).executor(tmp_path, WorkerOptions(threads=99))
    with pytest.raises(DeviceError, match=r"Ray cannot be reached at 127\.0\.0\.1:1 "):
        RayCluster("127.0.0.1:1").executor(tmp_path, WorkerOptions(threads=1))


def test_the_plan_is_resolved_where_the_workers_are(
    corpus: list[Path], static_model: Path, cluster: Any
) -> None:
    from embedkit.distributed.ray_workers import RayCluster
    from embedkit.distributed.resolving import resolve

    asked = request(corpus, static_model)
    try:
        assert RayCluster(cluster.address).resolve(asked) == resolve(asked)
    finally:
        import ray

        ray.shutdown()


@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_a_ray_data_pipeline_embeds_batches(static_model: Path, cluster: Any) -> None:
    import ray

    from embedkit.distributed.embed_batch import EmbedBatch

    texts = ["the dog runs", "a girl", "an old man reads"] * 20
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        rows = ray.data.from_items([{"text": text} for text in texts])
        found = rows.map_batches(
            EmbedBatch, fn_constructor_kwargs={"model": str(static_model)}, batch_size=16, concurrency=1
        ).take_all()
    finally:
        ray.shutdown()
    expected = dict(zip(texts, EmbedBatch(str(static_model))({"text": texts})["embedding"], strict=True))
    assert len(found) == 60
    assert all((row["embedding"] == expected[row["text"]]).all() for row in found)
