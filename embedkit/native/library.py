"""The file of compiled kernels and its C interface; which of its kernels are used is decided in dispatch.py."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, Literal

NativePrecision = Literal["fp32", "bf16", "int8"]

KERNELS_VERSION = 16  # of the structures below; KERNELS_VERSION in kernels/native.h
STOPPED = 2**40  # what ends a batch early as its next chunk; STOPPED in kernels/encoder.h
PANEL = 64  # numbers to which rows are filled up; PANEL in kernels/native.h
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


class Norm(ctypes.Structure):
    """`struct norm` of kernels/native.h."""

    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class Layer(ctypes.Structure):
    """`struct layer` of kernels/native.h."""

    _fields_ = (
        ("qkv", Linear),
        ("out", Linear),
        ("up", Linear),
        ("gate", Linear),
        ("down", Linear),
        ("after_attention", Norm),
        ("after_mlp", Norm),
        ("of_attention", Norm),
        ("of_mlp", Norm),
        ("query_norm", Norm),
        ("key_norm", Norm),
        ("rotary", ctypes.c_void_p),
        ("distance_keys", ctypes.c_void_p),
        ("distance_queries", ctypes.c_void_p),
        ("reach", ctypes.c_int64),
        ("ahead", ctypes.c_int64),
        ("twice", ctypes.c_int64),
    )


class Kernels(ctypes.Structure):
    """The beginning of `struct kernels` of kernels/native.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("number_bytes", ctypes.c_int64),
        ("code_bytes", ctypes.c_int64),
    )


class Model(ctypes.Structure):
    """`struct model` of kernels/native.h."""

    _fields_ = (
        ("kernels", ctypes.c_void_p),
        ("projecting", ctypes.c_void_p),
        ("hidden", ctypes.c_int64),
        ("embedding", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("key_heads", ctypes.c_int64),
        ("head_size", ctypes.c_int64),
        ("norm_together", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("num_layers", ctypes.c_int64),
        ("activation", ctypes.c_int64),
        ("shifted", ctypes.c_int64),
        ("position_offset", ctypes.c_int64),
        ("eps", ctypes.c_double),
        ("score_scale", ctypes.c_double),
        ("embedding_scale", ctypes.c_double),
        ("tokens", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("token_types", ctypes.c_void_p),
        ("embedding_norm", Norm),
        ("first_norm", Norm),
        ("final_norm", Norm),
        ("projection", Linear),
        ("distances", ctypes.c_void_p),
        ("distances_stride", ctypes.c_int64),
        ("numbers", ctypes.c_void_p),
        ("num_distances", ctypes.c_int64),
        ("layers", ctypes.POINTER(Layer)),
    )


class Batch(ctypes.Structure):
    """`struct batch` of kernels/encoder.h."""

    _fields_ = (
        ("input_ids", ctypes.c_void_p),
        ("token_types", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("chunks", ctypes.c_void_p),
        ("num_chunks", ctypes.c_int64),
        ("num_layers", ctypes.c_int64),
        ("first_only", ctypes.c_int64),
        ("mean", ctypes.c_int64),
        ("skip", ctypes.c_int64),
        ("merged_share", ctypes.c_double),
        ("keys", ctypes.c_void_p),
        ("hidden_states", ctypes.c_void_p),
    )


class BatchProgress(ctypes.Structure):
    """`struct progress` of kernels/encoder.h."""

    _fields_ = (("next", ctypes.c_int64), ("done", ctypes.c_int64))


class Crew(ctypes.Structure):
    """`struct crew` of kernels/encoder.h."""

    _fields_ = (
        ("memories", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("length", ctypes.c_int64),
    )


def find_library() -> Path | None:
    """Return the compiled file, which lies beside this one where there was a compiler."""
    path = Path(__file__).with_name("_kernels.so")
    return path if path.is_file() else None


def why_not_loadable() -> str | None:
    """Say why there is no compiled file that this embedkit can use; None where there is one."""
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
    """Load the kernels; `why_not_loadable` says beforehand whether they can be."""
    path = find_library()
    assert path is not None, "why_not_loadable was not asked"
    library = ctypes.CDLL(str(path))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "embedkit_cpu_features": (number, ()),
        "embedkit_kernels": (pointer, (number, number)),
        "embedkit_workspace_bytes": (number, (ctypes.POINTER(Model), number, number)),
        "embedkit_run": (
            None,
            (*(ctypes.POINTER(each) for each in (Model, Batch, BatchProgress, Crew)), number),
        ),
        "embedkit_pack": (None, (pointer, ctypes.POINTER(Linear), *(pointer,) * 6, ctypes.c_float)),
        "embedkit_multiply": (None, (pointer, ctypes.POINTER(Linear), pointer, number, pointer)),
        "embedkit_score_pairs": (None, (pointer, pointer, pointer, number, pointer, number, pointer)),
        "embedkit_scan_bytes": (number, (number, number)),
        "embedkit_scan": (
            None,
            (*(pointer,) * 3, number, pointer, number, number, pointer, number, *(pointer,) * 4),
        ),
        "embedkit_maxsim_bytes": (number, (number, number)),
        "embedkit_centroid_products": (None, (pointer,) * 4),
        "embedkit_score_tokens": (None, (*(pointer,) * 5, number, pointer, pointer)),
        "embedkit_score_centroids": (None, (pointer, pointer, number, pointer, pointer, number, pointer)),
        "embedkit_search_postings": (number, (pointer, pointer, pointer)),
        "embedkit_add_strings": (None, (pointer, number)),
        "embedkit_mean_rows": (None, (pointer, pointer, pointer, number, number, pointer)),
        "embedkit_transform": (
            None,
            (pointer, pointer, number, pointer, ctypes.c_double, pointer, number, pointer),
        ),
        "embedkit_fill_input": (None, (pointer, pointer, number, number, pointer, pointer)),
        "embedkit_reads_codes": (number, (pointer,)),
        "embedkit_rows_behind": (number, (pointer,)),
        "embedkit_largest_bytes": (number, ()),
        "embedkit_largest": (None, (*(pointer,) * 5, number, number, number, pointer, number, pointer)),
        "embedkit_wordpiece": (number, (pointer, pointer, number, pointer)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
