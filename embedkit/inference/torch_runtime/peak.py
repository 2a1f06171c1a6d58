"""How fast this machine multiplies: the limit that encoding is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from embedkit.inference.torch_runtime.backend import DTYPES
from embedkit.machine import BF16_FLAGS, FP16_FLAGS, INT8_FLAGS, cpu_flags
from embedkit.types import Precision


def has_rate(precision: Precision) -> bool:
    """Say whether torch multiplies in a precision as fast as the processor can; what it emulates may take minutes to measure."""
    flags = {"bf16": BF16_FLAGS, "fp16": FP16_FLAGS, "int8": INT8_FLAGS}.get(precision)
    return flags is None or bool(cpu_flags() & set(flags))


def matmul_gflops(precision: Precision, *, rows: int = 2048, size: int = 768, repeats: int = 8) -> float:
    """Measure a (rows, size) × (size, 4·size) product on the CPU, the best of several, in GFLOP/s (int8: in GOP/s).

    The shape is that of BERT base's widest layer over one batch of tokens.
    """
    multiply: Callable[[], torch.Tensor]
    if precision == "int8":
        bytes_left = torch.randint(-127, 128, (rows, size), dtype=torch.int8)
        bytes_right = torch.randint(-127, 128, (4 * size, size), dtype=torch.int8)
        multiply = partial(torch._int_mm, bytes_left, bytes_right.T)
    else:
        left = torch.randn(rows, size).to(DTYPES[precision])
        right = torch.randn(4 * size, size).to(DTYPES[precision])
        multiply = partial(torch.nn.functional.linear, left, right)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - start)
    return 2 * rows * size * 4 * size / best / 1e9
