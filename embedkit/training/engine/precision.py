"""The number format that a run computes in: the recipe's, or what this machine is faster in, measured once and kept for good."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from embedkit.errors import DeviceError
from embedkit.training.engine.native_linear import use_kernels
from embedkit.training.engine.recipes import Precision

Format = Literal["fp32", "bf16"]
BUDGET_SECONDS = 0.4
# A feed-forward layer of MiniLM's size, and as many tokens as the fp32 kernels take at least.
ROWS, HIDDEN, INNER = 256, 384, 1536


@dataclass(frozen=True)
class ChosenPrecision:
    """What a run computes in; `seconds` are those of each format where they were measured to choose."""

    format: Format
    seconds: Mapping[Format, float] | None = None

    def described(self) -> str:
        """Say what was chosen, and what was measured."""
        if self.seconds is None:
            return f"precision {self.format}"
        times = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in self.seconds.items())
        return f"precision {self.format}, the faster here ({times} for one layer, forward and backward)"


def choose_precision(
    device: torch.device, wanted: Precision, *, recorded: ChosenPrecision | None = None
) -> ChosenPrecision:
    """Settle what a run computes in; `recorded` is what it began with, where it is resumed.

    Raises:
        DeviceError: bf16 was asked for and the device would only emulate it.
    """
    native = multiplies_bf16(device)
    if wanted == "bf16" and not native:
        raise DeviceError(
            f"device {device} does not compute bf16 natively; train with --set run.precision=fp32"
        )
    measure = (lambda: measure_formats(BUDGET_SECONDS)) if device.type == "cpu" else None
    return settle(wanted, recorded, native=native, measure=measure)


def settle(
    wanted: Precision,
    recorded: ChosenPrecision | None,
    *,
    native: bool,
    measure: Callable[[], Mapping[Format, float]] | None,
) -> ChosenPrecision:
    """Choose the recipe's format; for `auto` the recorded one, else the faster one, or bf16 where nothing measures.

    Without native bf16 nothing is measured and `auto` is fp32, also where bf16 was recorded: a run that began on another machine is
    then refused for the difference.
    """
    if wanted != "auto":
        return ChosenPrecision(wanted)
    if recorded is not None and (native or recorded.format == "fp32"):
        return recorded
    if not native:
        return ChosenPrecision("fp32")
    if measure is None:
        return ChosenPrecision("bf16")
    seconds = measure()
    return ChosenPrecision("bf16" if seconds["bf16"] < seconds["fp32"] else "fp32", seconds)


def multiplies_bf16(device: torch.device) -> bool:
    """Say whether a device has instructions that multiply bf16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())


def measure_formats(budget_seconds: float) -> dict[Format, float]:
    """Time a feed-forward layer, forward and backward, in each format as training computes it: the best of several turns.

    Each format warms up once and is measured at least once, then in turn for as long as the budget lasts.
    """
    with torch.random.fork_rng(devices=[]):
        layer = nn.Sequential(nn.Linear(HIDDEN, INNER), nn.GELU(), nn.Linear(INNER, HIDDEN))
        rows = torch.randn(ROWS, HIDDEN, requires_grad=True)
    use_kernels(layer)

    def once(name: Format) -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name == "bf16"):
            out = layer(rows)
        torch.autograd.backward(F.mse_loss(out.float(), rows))
        return time.perf_counter() - started

    formats: tuple[Format, ...] = ("fp32", "bf16")
    until = time.perf_counter() + budget_seconds
    for name in formats:
        once(name)
    best = {name: once(name) for name in formats}
    while time.perf_counter() < until:
        for name in formats:
            best[name] = min(best[name], once(name))
    return best
