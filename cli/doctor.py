"""`embedkit doctor`: what this machine has, and what of it is fast."""

from __future__ import annotations

import platform
import shutil
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from .shared import console, options

if TYPE_CHECKING:
    from embedkit.types import Precision, Runtime

EXAMPLES = """\b
Examples:
  embedkit doctor
  embedkit doctor --json > machine.json
"""
PACKAGES = ("embedkit", "torch", "tokenizers", "safetensors", "numpy", "faiss-cpu", "typer", "rich")


def doctor(as_json: options.AsJson = False) -> None:
    """Report versions, processor features, threads, devices, which number formats are fast here, folders and disk.

    The rates are of torch's matrix product of BERT's shape, the best of several, in what it does not emulate. The backends
    are what computes a BERT in each number format on this processor. The kernels are embedkit's own, and what is named is the
    level of instructions that they use: generic, avx2 or avx512. EMBEDKIT_CPU=LEVEL keeps them to a lower one.
    """
    import torch

    from embedkit.extras import EXTRAS, has_extra
    from embedkit.inference.torch_runtime.peak import has_rate, matmul_gflops
    from embedkit.machine import BF16_FLAGS, FP16_FLAGS, INT8_FLAGS, cpu_flags, cpu_name, num_cores
    from embedkit.model.config import EncoderConfig
    from embedkit.native.dispatch import describe_level
    from embedkit.native.encoder import why_not
    from embedkit.storage.cache import cache_folder

    cache = cache_folder()
    flags = cpu_flags()
    backends = _backends()
    content: dict[str, object] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in PACKAGES},
        "extras": [name for name in EXTRAS if has_extra(name)],
        "cpu": cpu_name(),
        "cpu_features": sorted(flags & {*BF16_FLAGS, *FP16_FLAGS, *INT8_FLAGS, "avx2", "avx512f"}),
        "cores": num_cores(),
        "torch_threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "mps": torch.backends.mps.is_available(),
        "kernels": why_not(EncoderConfig(), "fp32") or describe_level(),
        "backends": backends,
        "fast_precisions": list(backends),
        "gflops": {name: round(matmul_gflops(name)) for name in backends if has_rate(name)},
        "folder": str(Path.cwd()),
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "cache_folder": str(cache),
        "cache_bytes": sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()),
    }
    if console.wants_json(as_json):
        console.print_json(content)
    else:
        console.print_table(("what", "here"), [(key, _cell(key, value)) for key, value in content.items()])


def _backends() -> dict[Precision, Runtime]:
    """Return what computes BERT base on this processor, by precision; those that nothing computes are left out."""
    from typing import get_args

    from embedkit.errors import DeviceError
    from embedkit.inference.choice import choose_runtime
    from embedkit.model.config import EncoderConfig
    from embedkit.types import Precision

    found: dict[Precision, Runtime] = {}
    for precision in get_args(Precision):
        with suppress(DeviceError):
            found[precision] = choose_runtime(EncoderConfig(), precision, "cpu").runtime
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _cell(key: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        unit = " GFLOP/s" if key == "gflops" else ""
        return ", ".join(f"{name} {each}{unit}" for name, each in value.items())
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / 1e9:,.1f} GB"
    return str(value)
