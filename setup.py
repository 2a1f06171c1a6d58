"""The one part of the build that pyproject.toml cannot say: the C kernels, which an installation can do without."""

from __future__ import annotations

import platform

from setuptools import Extension, setup

FOLDER = "embedkit/native/kernels"
SOURCES = (
    "attention_bf16.c",
    "attention_fp32.c",
    "encoder.c",
    "gemm_bf16.c",
    "gemm_fp32.c",
    "gemm_int8.c",
    "merge.c",
    "rows.c",
    "search.c",
)
HEADERS = ("attention.h", "gemm.h", "merge.h", "native.h", "rows.h", "simd.h", "tile.h")

kernels = Extension(
    "embedkit.native._kernels",
    sources=[f"{FOLDER}/{name}" for name in SOURCES],
    depends=[f"{FOLDER}/{name}" for name in HEADERS],
    # Python asks the processor for all of this before it loads the file; see embedkit/native/library.py.
    extra_compile_args=[
        "-std=c11",
        "-O3",
        "-march=x86-64-v4",
        "-mavx512bf16",
        "-mavx512vnni",
        "-fvisibility=hidden",
        "-g0",
    ],
    optional=True,  # without a compiler the installation goes on, and encoding runs on torch alone
)

setup(ext_modules=[kernels] if platform.machine() in ("x86_64", "AMD64") else [])
