"""The one part of the build that pyproject.toml cannot say: the C kernels, which an installation can do without."""

from __future__ import annotations

import platform
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FOLDER = Path("embedkit/native/kernels")
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0"]
# For any processor; what needs more is asked for in dispatch.c.
NEUTRAL = ["encoder.c", "layer.c", "dispatch.c", "postings.c", "wordpiece.c", "means.c", "terms.c"]
FP32 = ("attention_fp32.c", "gemm_fp32.c", "maxsim.c", "merge.c", "rows.c", "search.c")
BF16 = ("attention_bf16.c", "gemm_bf16.c")
INT8 = ("codes.c", "gemm_int8.c")


class Kernels(NamedTuple):
    """Some of the files of kernels/common, compiled for one set of instructions."""

    name: str
    folder: str  # of its simd.h
    base: str  # the set that has the rest
    sources: tuple[str, ...]
    flags: tuple[str, ...] = ()


GENERIC = (Kernels("generic", "generic", "generic", FP32 + INT8),)
X86_64 = (
    *GENERIC,
    Kernels("avx2", "avx2", "avx2", FP32 + INT8, ("-march=x86-64-v3",)),
    Kernels("avx2vnni", "avx2", "avx2", INT8, ("-march=x86-64-v3", "-mavxvnni")),
    Kernels("avx512", "avx512", "avx512", FP32, ("-march=x86-64-v4",)),
    Kernels("avx512vnni", "avx512", "avx512", INT8, ("-march=x86-64-v4", "-mavx512vnni")),
    Kernels(
        "avx512bf16", "avx512", "avx512", BF16 + INT8, ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16")
    ),
    Kernels("amx", "amx", "avx512", BF16 + INT8, ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16")),
)
ARM = (
    *GENERIC,
    Kernels("neon", "neon", "neon", FP32 + INT8),
    Kernels("neondot", "neon", "neon", INT8, ("-march=armv8.2-a+dotprod",)),
)
BY_MACHINE = {"x86_64": X86_64, "AMD64": X86_64, "aarch64": ARM, "arm64": ARM}
# What is built for, which may be another processor: _PYTHON_HOST_PLATFORM=linux-aarch64 CC=aarch64-linux-gnu-gcc.
TARGET = sysconfig.get_platform().rpartition("-")[2]
SETS = BY_MACHINE.get(TARGET) or BY_MACHINE.get(platform.machine(), ())


class BuildKernels(build_ext):
    """Compiles the files of each set with its own flags, and links all of them into one library."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name the library without a version of Python: ctypes loads it, and any version can."""
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        ext.define_macros = []
        for kernels in SETS:
            try:
                objects = self._compile(kernels)
            except CompileError as exc:
                # dispatch.c leaves it out
                print(f"warning: without the kernels of {kernels.name}: {exc}", file=sys.stderr)
                continue
            ext.extra_objects += objects
            ext.define_macros.append((f"HAS_{kernels.name}", "1"))
        super().build_extension(ext)

    def _compile(self, kernels: Kernels) -> list[str]:
        folder = Path(self.build_temp) / kernels.name
        return self.compiler.compile(
            [str(FOLDER / "common" / name) for name in kernels.sources],
            output_dir=str(folder),
            macros=[("SET", kernels.name), ("BASE", kernels.base), ("NAME", f'"{kernels.name}"')],
            include_dirs=[str(FOLDER / kernels.folder), str(FOLDER / "common")],
            extra_postargs=[*FLAGS, *kernels.flags],
            depends=[str(path) for path in FOLDER.rglob("*.h")],
        )


class PlatformWheel(bdist_wheel):
    """Tags the wheel for every Python on one platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


kernels = Extension(
    "embedkit.native._kernels",
    sources=[str(FOLDER / name) for name in NEUTRAL],
    depends=[str(path) for path in sorted(FOLDER.rglob("*.[ch]"))],
    extra_compile_args=FLAGS,
    optional=True,  # without a compiler the installation goes on, and encoding runs on torch alone
)

setup(
    ext_modules=[kernels] if SETS else [],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
