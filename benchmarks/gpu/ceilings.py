"""The ceilings: matrix products, and copies within the device and to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from .setting import DTYPES, Setting
from .stages import Case, Measured


def cases(setting: Setting) -> Iterator[Case]:
    for name in ("bf16", "fp16", "fp32"):
        yield f"product in {name}", partial(_product, setting, name)
    if setting.device == "cuda":
        yield "product in fp32 through TF32", partial(_product, setting, "tf32")
    yield "copy within the device", partial(_copy, setting, "device")
    yield "copy to the device", partial(_copy, setting, "pageable")
    if setting.device == "cuda":
        yield "copy to the device from pinned memory", partial(_copy, setting, "pinned")


@contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """Allow fp32 products through TF32 in the body."""
    before = torch.get_float32_matmul_precision()
    if wanted:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _product(setting: Setting, name: str) -> Measured:
    """Multiply two square random matrices; the rate is kept for the other measurements."""
    size = setting.size(8192, 128)
    dtype = DTYPES.get(name, torch.float32)
    left, right = (torch.randn(size, size, device=setting.device).to(dtype) for _ in range(2))
    with tf32(name == "tf32"):
        seconds = setting.seconds(lambda: left @ right, least=10)
    setting.rates[name] = 2 * size**3 / seconds
    return Measured({"TFLOP/s": setting.rates[name] / 1e12})


def _copy(setting: Setting, source: str) -> Measured:
    """Copy a gigabyte; within the device, bytes read and bytes written both count."""
    numbers = torch.zeros(setting.size(2**28, 2**12), device=setting.device if source == "device" else "cpu")
    if source == "pinned":
        numbers = numbers.pin_memory()
    target = torch.empty_like(numbers, device=setting.device)
    seconds = setting.seconds(lambda: target.copy_(numbers, non_blocking=True), least=5)
    moved = numbers.nbytes * (2 if source == "device" else 1)
    return Measured({"GB/s": moved / seconds / 1e9})
