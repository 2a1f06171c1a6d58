"""What every case is given: the device, the sizes, the folders, and how to time things."""

from __future__ import annotations

import gc
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from embedkit.machine import cpu_name, num_cores
from embedkit.types import Precision

from .packages import NEEDED, WANTED

T = TypeVar("T")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """Where and at which sizes the cases run; `quick` makes everything small, to test the cases themselves."""

    device: Literal["cpu", "cuda"]
    quick: bool
    place: Path  # a temporary folder
    output: Path
    rates: dict[str, float] = field(
        default_factory=dict
    )  # measured matrix products, in operations per second, by precision

    def size(self, full: T, quick: T) -> T:
        return quick if self.quick else full

    def finish(self) -> None:
        """Wait until the device has finished its work."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def tidy(self) -> None:
        """Free the memory of models that are gone, and reset the peak."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_mb(self) -> float:
        """Return the peak memory of tensors on the device since `tidy`; NaN on a CPU."""
        return torch.cuda.max_memory_allocated() / 1e6 if self.device == "cuda" else float("nan")

    def seconds(self, work: Callable[[], object], *, spend: float = 1.0, least: int = 3) -> float:
        """Return the median time of several calls, about `spend` seconds in all, after one warm-up call."""
        work()
        taken: list[float] = []
        while len(taken) < (1 if self.quick else least) or (sum(taken) < spend and not self.quick):
            self.finish()
            started = time.perf_counter()
            work()
            self.finish()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    def share_of_rate(self, flops: float, seconds: float, precision: str) -> float:
        """Return operations per second as a share of the measured rate of a precision."""
        return flops / seconds / self.rates.get(precision, float("nan"))


def relative_error(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return |found - wanted| / |wanted|, each taken as one long vector."""
    ours, theirs = found.astype(np.float64), wanted.astype(np.float64)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def surroundings(setting: Setting) -> dict[str, object]:
    """Describe the machine and the packages."""
    about: dict[str, object] = {
        "cpu": f"{cpu_name()}, {num_cores()} cores",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "device": setting.device,
    }
    if setting.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        about["gpu"] = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
        about["driver"] = _driver()
        about["cuda"] = str(torch.version.cuda)
        about["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call] # torch leaves it untyped
    for package in (*NEEDED.values(), *WANTED.values()):
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            about[package] = "missing"
    return about


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
