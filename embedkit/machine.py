"""Which devices and number formats this machine has, and which of them are worth using; how processes start here. No torch here."""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# One of these, and the processor multiplies bf16 in hardware; without, torch emulates it many times slower.
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
FP16_FLAGS = ("amx_fp16", "avx512_fp16", "fphp")
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm")
# The files through which Linux reaches NVIDIA's driver, AMD's, and either from within Windows.
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")

THREADS = "EMBEDKIT_THREADS"  # the environment's limit on processors, as for one of several workers


def gpu_may_be_there() -> bool:
    """Say whether it is worth a second to import torch and look for a GPU."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    return not hidden and any(Path(name).exists() for name in _GPU_FILES)


@contextmanager
def ctrl_c_deferred() -> Iterator[None]:
    """Start a process inside this that ignores Ctrl-C later: until it does, one that comes waits there, and stops nothing half-way."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def num_cores() -> int:
    """Return how many processors this process may use: all that the system gives it, at most $EMBEDKIT_THREADS."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get(THREADS, "")
    return min(here, int(asked)) if asked.isdecimal() and int(asked) else here


def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags as Linux names them; empty where it does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
