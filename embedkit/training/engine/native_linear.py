"""Linear layers in training on a CPU with the kernels of `embedkit.native`: the output and the gradient of the input in fp32.

The gradient of the weight, a product over all tokens, and whatever the kernels do not fit stay with torch. A row is computed the same
way in any company, so that cached gradients meet the very numbers of the full batch.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from embedkit.native.dispatch import cpu_level, find_kernels, why_not_here
from embedkit.native.library import PANEL, Linear, load_library
from embedkit.native.threads import on_threads

LEAST_ROWS = 256  # with fewer, packing the weights costs more than the kernels gain


def why_not() -> str | None:
    """Say why torch multiplies in training; None where the kernels do.

    With AVX2 they are as fast as torch at best, and half as fast where rows are few: weights are packed for each call.
    """
    if reason := why_not_here("fp32"):
        return reason
    return None if cpu_level() == "avx512" else "the kernels outrun torch in training with AVX-512 alone"


def use_kernels(module: nn.Module) -> int:
    """Let a module's linear layers use the kernels, where both fit; return how many do."""
    if why_not() is not None:
        return 0
    chosen = [child for child in module.modules() if type(child) is nn.Linear and fits(child)]
    for layer in chosen:
        # Of this one layer, so that names stay as they are; as a method, so that a copy of it computes with its own weights.
        layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]
    return len(chosen)


def fits(layer: nn.Linear) -> bool:
    plain = layer.weight.dtype == torch.float32 and layer.weight.device.type == "cpu"
    return plain and layer.in_features % PANEL == 0 and layer.out_features % PANEL == 0


def _forward(layer: nn.Linear, rows: Tensor) -> Tensor:
    fit = rows.dtype == torch.float32 and rows.ndim == 2 and len(rows) >= LEAST_ROWS
    if not fit or torch.is_autocast_enabled("cpu"):
        return F.linear(rows, layer.weight, layer.bias)
    out: Tensor = _Product.apply(rows, layer.weight, layer.bias)  # type: ignore[no-untyped-call] # torch leaves it untyped
    return out


class _Product(torch.autograd.Function):
    @staticmethod
    # Any: the context of torch's own functions is untyped
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return multiply(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            multiply(gradient, weight.t(), None) if of_rows else None,
            gradient.t() @ rows if of_weight else None,
            gradient.sum(dim=0) if of_bias else None,
        )


def multiply(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute x W' + b with the kernels, on as many threads as torch has.

    Shapes:
        rows: (N, K) float32; weight: (M, K) float32; bias: (M,); K and M multiples of 64
        returns: (N, M)
    """
    columns, size = weight.shape
    rows, weight = rows.contiguous(), weight.contiguous()
    bias = weight.new_zeros(columns) if bias is None else bias
    panels = torch.empty_like(weight)
    out = rows.new_empty(len(rows), columns)
    library, kernels = load_library(), find_kernels("fp32")
    linear = Linear(weight=panels.data_ptr(), bias=bias.data_ptr(), rows_in=size, columns=columns)
    library.embedkit_pack(
        kernels, ctypes.byref(linear), weight.data_ptr(), panels.data_ptr(), *(None,) * 4, 0.0
    )

    def compute(part: slice) -> None:
        there, to = rows[part], out[part]
        library.embedkit_multiply(kernels, ctypes.byref(linear), there.data_ptr(), len(there), to.data_ptr())

    threads = torch.get_num_threads()
    cuts = [len(rows) * n // threads for n in range(threads + 1)]
    parts = list(map(slice, cuts[:-1], cuts[1:]))
    if threads == 1:
        compute(*parts)
    else:
        list(on_threads(_pool(threads), compute, parts, keep=(panels, bias)))
    return out


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "embedkit-products")
