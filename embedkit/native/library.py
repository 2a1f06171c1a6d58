"""The compiled kernels: whether this processor and this installation have them, and their C interface."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Literal

from embedkit.machine import cpu_flags

NativePrecision = Literal["fp32", "bf16", "int8"]

KERNELS_VERSION = 5  # of the structures below and of packed weights; KERNELS_VERSION in kernels/native.h
PANEL = 64  # numbers to which rows are filled up; PANEL in kernels/native.h
# The kernels are compiled for all of these at once.
CPU_FLAGS = ("avx2", "bmi2", "fma", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
CPU_FLAGS_OF: dict[NativePrecision, tuple[str, ...]] = {
    "fp32": (),
    "bf16": ("avx512_bf16",),
    "int8": ("avx512_vnni", "avx512_bf16"),
}
PRECISION_CODES: dict[NativePrecision, int] = {"fp32": 0, "bf16": 1, "int8": 2}


class Linear(ctypes.Structure):
    """`struct linear` of kernels/native.h."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("start", ctypes.c_void_p),
        ("rows_in", ctypes.c_int64),
        ("columns", ctypes.c_int64),
    )


class Layer(ctypes.Structure):
    """`struct layer` of kernels/native.h."""

    _fields_ = (
        ("qkv", Linear),
        ("out", Linear),
        ("up", Linear),
        ("down", Linear),
        ("attention_norm_weight", ctypes.c_void_p),
        ("attention_norm_bias", ctypes.c_void_p),
        ("mlp_norm_weight", ctypes.c_void_p),
        ("mlp_norm_bias", ctypes.c_void_p),
    )


class Model(ctypes.Structure):
    """`struct model` of kernels/native.h."""

    _fields_ = (
        ("precision", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("num_layers", ctypes.c_int64),
        ("activation", ctypes.c_int64),
        ("position_offset", ctypes.c_int64),
        ("eps", ctypes.c_double),
        ("tokens", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("token_types", ctypes.c_void_p),
        ("norm_weight", ctypes.c_void_p),
        ("norm_bias", ctypes.c_void_p),
        ("layers", ctypes.POINTER(Layer)),
    )


class Batch(ctypes.Structure):
    """`struct batch` of kernels/encoder.c."""

    _fields_ = (
        ("input_ids", ctypes.c_void_p),
        ("token_types", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("chunks", ctypes.c_void_p),
        ("num_chunks", ctypes.c_int64),
        ("num_layers", ctypes.c_int64),
        ("first_only", ctypes.c_int64),
        ("merged_share", ctypes.c_double),
        ("hidden_states", ctypes.c_void_p),
    )


def find_library() -> Path | None:
    """Return the compiled file, which lies beside this one under a name that the Python version decides."""
    folder = Path(__file__).parent
    candidates = (folder / f"_kernels{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def why_not_here(precision: NativePrecision) -> str | None:
    """Say why the kernels of a precision cannot run on this processor or in this installation; None where they can."""
    wanted = {*CPU_FLAGS, *CPU_FLAGS_OF[precision]}
    if missing := sorted(wanted - cpu_flags()):
        return f"this processor has no {', '.join(missing)}"
    path = find_library()
    if path is None:
        return (
            "the kernels are not compiled: embedkit was installed without a C compiler. "
            "Install one (apt install gcc), then embedkit again"
        )
    try:
        found = ctypes.CDLL(str(path)).embedkit_kernels_version()
    except (OSError, AttributeError) as exc:
        return f"the kernels cannot be loaded ({exc}). Install embedkit again"
    if found != KERNELS_VERSION:
        return (
            f"the kernels in {path} are of version {found}; this embedkit is written for {KERNELS_VERSION}. "
            "Install embedkit again"
        )
    return None


@cache
def load_library() -> ctypes.CDLL:
    """Load the kernels; `why_not_here` says beforehand whether they can be."""
    path = find_library()
    assert path is not None, "why_not_here was not asked"
    library = ctypes.CDLL(str(path))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.embedkit_workspace_bytes.restype = number
    library.embedkit_workspace_bytes.argtypes = (ctypes.POINTER(Model), number, number)
    library.embedkit_run.restype = None
    library.embedkit_run.argtypes = (
        ctypes.POINTER(Model),
        ctypes.POINTER(Batch),
        pointer,
        pointer,
        number,
        number,
    )
    for name in ("embedkit_pack_fp32", "embedkit_pack_bf16"):
        getattr(library, name).restype = None
        getattr(library, name).argtypes = (ctypes.POINTER(Linear), pointer, pointer)
    library.embedkit_multiply_fp32.restype = None
    library.embedkit_multiply_fp32.argtypes = (ctypes.POINTER(Linear), pointer, number, pointer)
    library.embedkit_score_pairs.restype = None
    library.embedkit_score_pairs.argtypes = (pointer, pointer, number, pointer, number, pointer)
    library.embedkit_scan_bytes.restype = number
    library.embedkit_scan_bytes.argtypes = (number, number)
    library.embedkit_scan.restype = None
    library.embedkit_scan.argtypes = (
        pointer,
        pointer,
        number,
        pointer,
        number,
        number,
        pointer,
        number,
        *(pointer,) * 4,
    )
    library.embedkit_pack_int8.restype = None
    library.embedkit_pack_int8.argtypes = (
        ctypes.POINTER(Linear),
        *(pointer,) * 6,
        ctypes.c_float,
    )
    return library
