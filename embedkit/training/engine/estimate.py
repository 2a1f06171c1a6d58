"""How fast the machine is, and what a run would take: a few real steps, measured, nothing kept."""

from __future__ import annotations

import copy
import resource
import time
from dataclasses import dataclass

import torch

from embedkit.training.engine.journey import Journey
from embedkit.training.engine.loop import seeded
from embedkit.training.engine.optim import make_optimizer
from embedkit.training.engine.precision import Format
from embedkit.training.engine.ranks import Ranks, prepared
from embedkit.training.engine.recipes import OptimRecipe, RunRecipe
from embedkit.training.engine.run_precision import with_precision
from embedkit.training.engine.state import state_bytes


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run would take; `memory_bytes` is the peak of the process (CPU) or of the device's allocator (CUDA)."""

    parameters: int
    trained_parameters: int
    steps: int
    tokens_per_step: float
    tokens: float
    precision: str
    tokens_per_second: float
    share_of_peak: float
    memory_bytes: int
    disk_bytes: int
    seconds: float


def matmul_peak(device: torch.device, precision: Format, *, seconds: float = 0.3) -> float:
    """Measure the fastest matrix product the device does, in floating-point operations a second.

    Two square matrices, 2,048 wide (8,192 on CUDA); the best of the products done within `seconds`.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size = 8192 if device.type == "cuda" else 2048
    left = torch.randn(size, size, dtype=dtype, device=device)
    right = torch.randn(size, size, dtype=dtype, device=device)
    best = float("inf")
    until = time.perf_counter() + seconds
    left @ right  # the first product also sets up the library
    while time.perf_counter() < until or best == float("inf"):
        _finish(device)
        started = time.perf_counter()
        left @ right
        _finish(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def estimate(
    journey: Journey, run: RunRecipe, optim: OptimRecipe, *, ranks: Ranks, measured_steps: int = 5
) -> Estimate:
    """Make a few real steps, work out what the whole run would take, and put the weights back.

    The first step warms up and is not counted.
    """
    ranks = with_precision(ranks, run)
    precision: Format = "bf16" if ranks.computes_bf16 else "fp32"
    module = prepared(journey.module, ranks, run)
    if ranks.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(ranks.device)  # what came before is not this run's
    weights = copy.deepcopy(journey.module.state_dict())
    module.train()
    optimizer = make_optimizer(journey.module, optim)
    tokens = flops = spent = 0.0
    for number in range(measured_steps + 1):
        step = number % run.steps  # a short run has fewer
        _finish(ranks.device)
        started = time.perf_counter()
        with seeded(run.seed, step, ranks):
            shares = journey.backward(module, step, ranks)
        optimizer.step()
        optimizer.zero_grad()
        _finish(ranks.device)
        if number:
            spent += time.perf_counter() - started
            sums = ranks.total({"tokens": shares.tokens, "flops": shares.flops})
            tokens, flops = tokens + sums["tokens"], flops + sums["flops"]
    memory = _peak_memory(ranks.device)  # before `matmul_peak`, whose matrices are larger than a small model
    journey.module.load_state_dict(weights)
    parameters = list(journey.module.parameters())
    per_step = tokens / measured_steps
    peak = matmul_peak(ranks.device, precision) * ranks.world
    return Estimate(
        parameters=sum(p.numel() for p in parameters),
        trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        steps=run.steps,
        tokens_per_step=per_step,
        tokens=per_step * run.steps,
        precision=precision,
        tokens_per_second=tokens / spent,
        share_of_peak=flops / spent / peak,
        memory_bytes=memory,
        disk_bytes=state_bytes(journey.module, keep_last=run.keep_last, averaged=run.ema_decay > 0),
        seconds=run.steps * spent / measured_steps,
    )


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
