"""Ray over a network that breaks: two nodes in network namespaces of their own, joined by a cable that is pulled while shards are built."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedkit.extras import has_extra
from tests.conftest import REPOSITORY
from tests.distributed import hashes, request, write_texts, written_at
from tests.distributed.test_identity import run

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        not has_extra("ray"), reason="the package ray is not installed: pip install 'embedkit[ray]'"
    ),
]

SHARDS = 12
HEAD, OTHER = "10.213.77.1", "10.213.77.2"
ADDRESS = f"{HEAD}:6379"


@dataclass
class Halves:
    """Two namespaces with a node of one CPU each; `head` has the driver, too."""

    head: str
    other: str
    environment: dict[str, str]

    def command(self, space: str, *words: object) -> list[str]:
        return ["ip", "netns", "exec", space, sys.executable, "-m", *map(str, words)]

    def cable(self, state: str) -> None:
        ip("-n", self.head, "link", "set", f"{self.head}-v", state)

    def start(self, space: str, *words: object) -> None:
        """Start a node; its log is not captured, as its processes would keep the pipe."""
        given = ("ray.scripts.scripts", "start", "--num-cpus=1", "--disable-usage-stats", *words)
        subprocess.run(
            self.command(space, *given),
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            timeout=90,
        )

    def build(self, corpus: Path, model: Path, folder: Path) -> subprocess.Popen[str]:
        words = ["cli", "index", "build", corpus, "--index", folder, "--model", model, "--shards", SHARDS]
        words += ["--precision", "fp32", "--device", "cpu", "--executor", "ray", "--address", ADDRESS]
        words += ["--worker-timeout", "15s", "--json"]
        return subprocess.Popen(
            self.command(self.head, *words),
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def halves() -> Iterator[Halves]:
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip (iproute2)")
    name = f"ek{os.getpid() % 100_000}"
    spaces = (f"{name}a", f"{name}b")
    try:
        for space in spaces:
            ip("netns", "add", space)
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"network namespaces cannot be made here: {exc.stderr.strip()}")
    place = tempfile.mkdtemp(prefix="ekr")  # short: Ray puts sockets below it
    # On an address that others could reach Ray wants a token.
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "e" * 40}
    environment.pop("RAY_ADDRESS", None)
    try:
        ends = [f"{space}-v" for space in spaces]
        ip(*f"link add {ends[0]} netns {spaces[0]} type veth peer name {ends[1]} netns {spaces[1]}".split())
        for space, end, address in zip(spaces, ends, (HEAD, OTHER), strict=True):
            ip("-n", space, "addr", "add", f"{address}/30", "dev", end)
            for each in ("lo", end):
                ip("-n", space, "link", "set", each, "up")
        made = Halves(*spaces, environment)
        head = (f"--node-ip-address={HEAD}", "--port=6379", "--include-dashboard=false")
        made.start(spaces[0], "--head", *head, f"--temp-dir={place}")
        made.start(spaces[1], f"--address={ADDRESS}", f"--node-ip-address={OTHER}")
        yield made
    finally:
        for space in spaces:
            for process in ip("netns", "pids", space).split():
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            ip("netns", "del", space)
        shutil.rmtree(place, ignore_errors=True)


def receipts(folder: Path) -> dict[int, int]:
    """Return which shards have a receipt, and when it was written."""
    numbers = [int(path.stem) for path in (folder / "receipts").glob("[0-9]*.json")]
    return {number: written_at(folder, number) for number in numbers}


def wait_for(folder: Path, count: int, driver: subprocess.Popen[str]) -> dict[int, int]:
    ends = time.monotonic() + 120
    while len(found := receipts(folder)) < count:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < ends, f"{len(found)} of {count} shards are done"
        time.sleep(0.02)
    return found


def answer(driver: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = driver.communicate(timeout=150)
    assert driver.returncode == 0, errors
    return json.loads(output)  # type: ignore[no-any-return]


@pytest.mark.parametrize("stopped", [False, True], ids=["the driver goes on", "the driver is stopped"])
def test_a_network_that_breaks_loses_nothing(
    tmp_path: Path, static_model: Path, halves: Halves, stopped: bool
) -> None:
    corpus, folder = write_texts(tmp_path / "a.jsonl", 12_000), tmp_path / "big"
    run(tmp_path / "one", request([corpus], static_model, shards=SHARDS))
    driver = halves.build(corpus, static_model, folder)
    try:
        before = wait_for(folder, 3, driver)
        assert len(before) < SHARDS - 2
        halves.cable("down")
        if stopped:
            wait_for(folder, len(before) + 2, driver)  # the half with the driver goes on
            driver.send_signal(signal.SIGINT)
            assert driver.wait(60) == 130
        else:
            found = answer(driver)
            assert (found["done"], found["failed"]) == (SHARDS, {})
            assert found["retried"] or found["copied"]  # what the other half had in hand
            assert hashes(folder) == hashes(tmp_path / "one")
    finally:
        driver.kill()
        driver.communicate()
    done = receipts(folder)
    assert done.items() >= before.items()
    assert (len(done) < SHARDS) == stopped
    halves.cable("up")
    found = answer(halves.build(corpus, static_model, folder))
    assert (found["done"], found["failed"], found["built_again"]) == (SHARDS, {}, {})
    assert found["done_before"] >= len(done)
    assert receipts(folder).items() >= done.items()
    assert hashes(folder) == hashes(tmp_path / "one")
