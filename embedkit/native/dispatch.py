"""Which of the compiled kernels this processor runs: the best for each precision, or no better than EMBEDKIT_CPU says.

The library holds kernels for several sets of instructions; a level is what a processor may have of them together. The
environment can only lower it: for tests, and to see what another machine would compute.
"""

from __future__ import annotations

import os
from functools import cache

from embedkit.errors import DeviceError
from embedkit.native.library import (
    PRECISION_CODES,
    Kernels,
    NativePrecision,
    load_library,
    why_not_loadable,
)

CPU = "EMBEDKIT_CPU"  # the environment's limit on sets of instructions
# The bits of `enum feature` in kernels/dispatch.c; `avx2` and `avx512` stand for all that x86-64-v3 and -v4 consist of.
CPU_FEATURES = (
    "avx2",
    "avx_vnni",
    "avx512",
    "avx512_vnni",
    "avx512_bf16",
    "neon",
    "dotprod",
    "amx",
    "amx_refused",
)
GENERIC = "generic"  # plain C, for what every processor of a kind has
AVX512 = ("avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16")
# What each level may use. A processor has a level if it has the feature of its name.
LEVELS: dict[str, tuple[str, ...]] = {
    GENERIC: (),
    "avx2": ("avx2", "avx_vnni"),
    "avx512": AVX512,
    "amx": (*AVX512, "amx"),
    "neon": ("neon", "dotprod"),
}
TILES_REFUSED = (
    "the processor has AMX, and the system does not let this process use it: "
    "Linux older than 5.16, a sandbox that forbids arch_prctl, or a thread whose signal stack is too small"
)
NEEDED_FOR: dict[NativePrecision, tuple[str, ...]] = {
    "fp32": (),
    "bf16": ("avx512", "avx512_vnni", "avx512_bf16"),
    "int8": (),
}


def why_not_here(precision: NativePrecision) -> str | None:
    """Say why the kernels of a precision cannot run on this processor or in this installation; None where they can.

    Raises:
        DeviceError: EMBEDKIT_CPU names what this processor lacks.
    """
    return why_not_loadable() or _why_not_kernels(precision)


def _why_not_kernels(precision: NativePrecision) -> str | None:
    usable = _usable_features()
    if _address_of(precision, usable):
        return None
    here = cpu_features()
    missing = [name for name in NEEDED_FOR[precision] if name not in here]
    if missing:
        return f"this processor has no {', '.join(missing)}"
    if lowered := [name for name in NEEDED_FOR[precision] if name not in usable]:
        return f"{CPU}={os.environ[CPU]} leaves out {', '.join(lowered)}"
    return "the compiler that built the kernels did not know its instructions"


@cache
def cpu_features() -> frozenset[str]:
    """Return what of CPU_FEATURES this processor and its system have, as the kernels find it."""
    bits = load_library().embedkit_cpu_features()
    return frozenset(name for bit, name in enumerate(CPU_FEATURES) if bits >> bit & 1)


def levels_here() -> list[str]:
    """Return the names that EMBEDKIT_CPU may have on this processor; the last is what is taken without it."""
    here = cpu_features()
    return [name for name in LEVELS if name == GENERIC or name in here]


def cpu_level() -> str:
    """Return the level of instructions that the kernels use.

    Raises:
        DeviceError: EMBEDKIT_CPU names what this processor lacks.
    """
    levels = levels_here()
    asked = os.environ.get(CPU, "")
    if not asked:
        return levels[-1]
    if asked not in levels:
        what = f"this processor has no {asked}" if asked in LEVELS else "there is no such level"
        raise DeviceError(f"{CPU} is {asked!r}, and {what}; here it can be {', '.join(levels)}, or unset")
    return asked


def describe_level() -> str | None:
    """Name the level and what computes each precision at it, as `fp32 by avx2`; None where there are no kernels.

    Where the processor has tiles that the system refuses, that is said, too.
    """
    if why_not_here("fp32") is not None:
        return None
    level = cpu_level()
    found = {name: _address_of(name, _usable_features()) for name in PRECISION_CODES}
    by = {
        precision: describe_kernels(address).name.decode()
        for precision, address in found.items()
        if address is not None
    }
    refused = f"; {TILES_REFUSED}" if "amx_refused" in cpu_features() else ""
    return f"{level} ({', '.join(f'{precision} by {name}' for precision, name in by.items())}{refused})"


def is_generic() -> bool:
    """Say whether the kernels here are those in plain C, which torch outruns."""
    return why_not_here("fp32") is None and cpu_level() == GENERIC


def _usable_features() -> frozenset[str]:
    return cpu_features() & set(LEVELS[cpu_level()])


@cache
def _address_of(precision: NativePrecision, usable: frozenset[str]) -> int | None:
    bits = sum(1 << bit for bit, name in enumerate(CPU_FEATURES) if name in usable)
    address: int | None = load_library().embedkit_kernels(bits, PRECISION_CODES[precision])
    return address


def find_kernels(precision: NativePrecision) -> int:
    """Return the address of the best kernels of a precision; `why_not_here` says beforehand whether there are any."""
    address = _address_of(precision, _usable_features())
    assert address is not None, "why_not_here was not asked"
    return address


def describe_kernels(address: int) -> Kernels:
    """Return the structure that lies where `find_kernels` says."""
    return Kernels.from_address(address)
