"""What the processor can do, as Linux tells it."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedkit.inference.torch_runtime.peak import matmul_gflops
from embedkit.machine import cpu_flags, cpu_name, ctrl_c_deferred, num_cores


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux tells its flags in /proc/cpuinfo")
def test_flags_are_the_words_of_one_processors_line() -> None:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith(("flags", "Features")))
    assert cpu_flags() == set(line.split(":")[1].split())
    assert cpu_name()


def test_where_nothing_is_told_there_are_no_flags_and_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(path: Path, *, encoding: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", nothing)
    assert cpu_flags() == frozenset()
    assert cpu_name() == (platform.processor() or platform.machine())


def test_the_rate_of_a_product_is_between_a_slow_and_an_impossible_one() -> None:
    assert 0.1 < matmul_gflops("fp32", rows=64, size=64, repeats=2) < 1e5


def test_a_worker_may_be_held_to_fewer_processors_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBEDKIT_THREADS", raising=False)
    here = num_cores()
    for asked, found in (("1", 1), ("100000", here), ("0", here), ("many", here), ("", here)):
        monkeypatch.setenv("EMBEDKIT_THREADS", asked)
        assert num_cores() == found


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs signals of POSIX")
def test_ctrl_c_stops_no_process_that_is_starting() -> None:
    """It comes before the process ignores it, and is dropped when it does."""
    script = "import signal, sys; print(1, flush=True); sys.stdin.readline(); signal.signal(signal.SIGINT, signal.SIG_IGN); print(2)"
    with ctrl_c_deferred():
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate("go on\n", timeout=60)[0] == "2\n"
    assert process.returncode == 0
