"""Memory while encoding does not grow with the corpus."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# The target is 100 MB between 10,000 and 1,000,000 texts; a fifth of the texts shows the same slope in a fifth of the time.
SMALL, LARGE = 10_000, 200_000
ALLOWED_BYTES = 100e6

PROGRAM = """
import resource, sys
from cli.main import app
try:
    app()
except SystemExit as exc:
    code = exc.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def peak_bytes(count: int, model: Path, folder: Path) -> int:
    """Encode `count` short, different texts in a process of its own, and return the most memory that it held."""
    corpus, output = folder / f"{count}.txt", folder / f"{count}.npy"
    with corpus.open("w", encoding="utf-8") as file:
        file.writelines(f"the dog runs {i} by the water\n" for i in range(count))
    arguments = ["encode", str(corpus), "--model", str(model), "--output", str(output), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert np.load(output, mmap_mode="r").shape == (count, 32)
    unit = 1 if sys.platform == "darwin" else 1024
    return int(done.stdout) * unit


@pytest.mark.slow
def test_the_peak_hardly_depends_on_the_number_of_texts(tiny_model: Path, tmp_path: Path) -> None:
    small, large = (peak_bytes(count, tiny_model, tmp_path) for count in (SMALL, LARGE))
    assert large - small < ALLOWED_BYTES, (
        f"{small / 1e6:.0f} MB at {SMALL:,} texts, {large / 1e6:.0f} MB at {LARGE:,}"
    )
    assert resource.getpagesize() < small  # the measure is in bytes
