"""Which devices and number formats this machine has, and which of them are worth using. No torch here."""

from __future__ import annotations

import platform
from pathlib import Path

# One of these, and the processor multiplies bf16 in hardware; without, torch emulates it many times slower.
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
FP16_FLAGS = ("amx_fp16", "avx512_fp16", "fphp")
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm")


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
