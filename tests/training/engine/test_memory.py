"""Freed memory is used again and not fetched again from the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Pages are fetched where they are touched for the first time: 64 MiB are 16,384 of 4 KiB.
SCRIPT = """
import ctypes, resource
from embedkit.training.engine.memory import keep_freed_memory

def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * (len(block) // 4096)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

touch()
default = touch()
kept = keep_freed_memory()
touch()
print(int(kept), default, touch())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_a_block_that_was_freed_is_not_fetched_again() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    kept, default, pages = map(int, done.stdout.split())
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert pages < default / 4
