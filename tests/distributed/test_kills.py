"""Kills at every step: the same command ends with the same bytes, and does nothing again that has a receipt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedkit.distributed.layout import receipt_path, shard_path
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.planning import planned
from embedkit.distributed.receipts import Receipt, verified
from embedkit.distributed.shard import ShardBuilder
from embedkit.errors import EmbedkitError
from tests.conftest import REPOSITORY
from tests.distributed import hashes, request, write_corpus, written_at
from tests.distributed.killed import build_all, work_until
from tests.forking import Forking
from tests.full_disk import files_limited_to


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The texts, which no test here changes."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, corpus: list[Path], static_model: Path) -> list[str]:
    """The hashes of the shards that nothing has stopped."""
    folder = tmp_path_factory.mktemp("expected") / "big"
    make_plan(folder, corpus, static_model)
    return build_all(folder)


@pytest.fixture(scope="module")
def forking() -> Iterator[Forking]:
    """The workers that are killed are forks of a process that has loaded what they need."""
    server = Forking("tests.distributed.killed", "embedkit.distributed.index_shards")
    yield server
    server.close()


def make_plan(folder: Path, corpus: list[Path], model: Path) -> ShardPlan:
    with planned(folder, request(corpus, model)) as plan:
        return plan


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("00001.index", id="before the rename"),
        pytest.param("00001.ids", id="between index and receipt"),
        pytest.param("receipts/00001.json", id="before the receipt's own rename"),
    ],
)
def test_a_worker_that_is_killed_leaves_nothing_that_counts_as_done(
    forking: Forking,
    tmp_path: Path,
    corpus: list[Path],
    static_model: Path,
    expected: list[str],
    moment: str,
) -> None:
    plan = make_plan(tmp_path / "big", corpus, static_model)
    killed = forking.start(work_until, tmp_path / "big", moment)
    assert killed.wait(120)
    assert killed.kill() == ["killed"]
    verified(tmp_path / "big", 0, plan.digest)
    with pytest.raises(ValueError, match="there is no receipt"):
        verified(tmp_path / "big", 1, plan.digest)
    before = written_at(tmp_path / "big", 0)
    make_plan(tmp_path / "big", corpus, static_model)  # takes away what was left half done
    assert build_all(tmp_path / "big") == expected
    assert written_at(tmp_path / "big", 0) == before
    assert sorted(path.name for path in (tmp_path / "big" / "shards").iterdir()) == [
        f"{number:05d}.index" for number in range(4)
    ]


def test_a_worker_that_stops_within_a_shard_begins_it_anew(
    tmp_path: Path, corpus: list[Path], static_model: Path, expected: list[str]
) -> None:
    make_plan(tmp_path / "big", corpus, static_model)
    builder = ShardBuilder(tmp_path / "big")

    def stop(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        builder.build(2, stop)
    assert list((tmp_path / "big" / "shards").iterdir()) == []
    assert build_all(tmp_path / "big") == expected


def test_a_worker_that_is_late_leaves_what_another_has_finished_as_it_is(
    tmp_path: Path, corpus: list[Path], static_model: Path
) -> None:
    """As one whose node was out of reach for a while: its shard was given to another, and is done when it comes back."""
    make_plan(tmp_path / "big", corpus, static_model)
    late, other = ShardBuilder(tmp_path / "big"), ShardBuilder(tmp_path / "big")
    seen: list[tuple[Receipt, int]] = []

    def meanwhile(progress: object) -> None:
        if not seen:
            seen.append((other.build(1, lambda progress: None), written_at(tmp_path / "big", 1)))

    assert (late.build(1, meanwhile), written_at(tmp_path / "big", 1)) == seen[0]
    assert [path.name for path in (tmp_path / "big" / "shards").iterdir()] == ["00001.index"]


@pytest.mark.parametrize("room", [100, 30_000, 70_000])
def test_a_full_disk_is_told_and_the_rerun_ends_with_the_same_bytes(
    tmp_path: Path, corpus: list[Path], static_model: Path, expected: list[str], room: int
) -> None:
    make_plan(tmp_path / "big", corpus, static_model)
    builder = ShardBuilder(tmp_path / "big")
    with files_limited_to(room), pytest.raises(EmbedkitError, match=r"[Mm]ake room|disk I/O error|the disk"):
        builder.build(0, lambda progress: None)
    assert not receipt_path(tmp_path / "big", 0).exists()
    assert not shard_path(tmp_path / "big", 0).exists()
    assert build_all(tmp_path / "big") == expected


def test_a_driver_that_is_killed_takes_its_workers_along_and_the_same_command_goes_on(
    tmp_path: Path, corpus: list[Path], static_model: Path
) -> None:
    words = [
        "index",
        "build",
        *map(str, corpus),
        "--index",
        str(tmp_path / "big"),
        "--model",
        str(static_model),
    ]
    words += ["--shards", "8", "--workers", "2", "--json"]
    command = [sys.executable, "-m", "cli", *words]
    driver = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    ends = time.monotonic() + 60
    while not list((tmp_path / "big").glob("receipts/*.json")) and driver.poll() is None:
        assert time.monotonic() < ends
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    while _alive(driver.pid):
        assert time.monotonic() < ends, "workers go on without their driver"
        time.sleep(0.05)
    done = len(list((tmp_path / "big").glob("receipts/*.json")))
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    summary = json.loads(again.stdout)
    assert summary["done"] == 8
    assert summary["done_before"] == done >= 1
    with planned(tmp_path / "other", request(corpus, static_model, shards=8)):
        pass
    assert hashes(tmp_path / "big") == build_all(tmp_path / "other")


def _alive(session: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.name))
    return found


def test_ctrl_c_stops_the_workers_and_prints_the_line_that_resumes(
    tmp_path: Path, corpus: list[Path], static_model: Path
) -> None:
    words = [
        "index",
        "build",
        *map(str, corpus),
        "--index",
        str(tmp_path / "big"),
        "--model",
        str(static_model),
    ]
    words += ["--shards", "8", "--workers", "2"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "cli", *words],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    ends = time.monotonic() + 60
    while not list((tmp_path / "big").glob("receipts/*.json")) and driver.poll() is None:
        assert time.monotonic() < ends
        time.sleep(0.01)
    os.killpg(driver.pid, signal.SIGINT)
    _, said = driver.communicate(timeout=180)
    assert driver.returncode == 130, said
    assert "of 8 shards done in" in said
    assert "--shards 8 --workers 2" in said
    assert "Traceback" not in said
    ends = time.monotonic() + 20
    while _alive(driver.pid) and time.monotonic() < ends:  # those that were told to end need a moment
        time.sleep(0.05)
    assert _alive(driver.pid) == []
