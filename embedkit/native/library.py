"""The compiled kernels: whether this processor and this installation have them, and their C interface."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Literal

from embedkit.encoding.devices import cpu_flags

NativePrecision = Literal["fp32", "bf16", "int8"]

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
        ("hidden_states", ctypes.c_void_p),
    )


def find_library() -> Path | None:
    """Return the compiled file, which lies beside this one under a name that the Python version decides."""
    folder = Path(__file__).parent
    candidates = (folder / f"_kernels{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def missing_flags(precision: NativePrecision) -> list[str]:
    """Name what the kernels of a precision need and this processor has not."""
    wanted = (*CPU_FLAGS, *CPU_FLAGS_OF[precision])
    return sorted(set(wanted) - cpu_flags())


@cache
def load_library() -> ctypes.CDLL:
    """Load the kernels; `why_not` says beforehand whether they can be."""
    path = find_library()
    assert path is not None, "why_not was not asked"
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
    library.embedkit_pack_int8.restype = None
    library.embedkit_pack_int8.argtypes = (
        ctypes.POINTER(Linear),
        *(pointer,) * 6,
        ctypes.c_float,
    )
    return library
