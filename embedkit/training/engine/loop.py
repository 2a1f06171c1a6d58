"""The one training loop: optimizer steps over a journey, exact resume, held-out evaluation, reports.

A *journey* (pretraining, contrastive, reranking, distillation) brings the module, the batches and the loss; the loop brings
everything else. One step:

1. seed the random numbers from (seed, step, rank): dropout after a resume is dropout without one
2. `journey.backward(step)`: forward and backward, gradients of the whole batch's loss
3. refuse a loss or gradient that is not finite, before it touches a weight
4. clip, set the learning rate, step; update the running mean of weights
5. every so often evaluate, keep the best, save a state
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import nn

from embedkit.errors import TrainingError
from embedkit.training.engine.journey import Journey
from embedkit.training.engine.optim import AveragedWeights, learning_rate, make_optimizer
from embedkit.training.engine.ranks import Ranks, alone, check_world, prepared
from embedkit.training.engine.recipes import OptimRecipe, RunRecipe
from embedkit.training.engine.reporting import Evaluated, Report, Resumed, Saved, Step
from embedkit.training.engine.run_folder import Position, RunFolder
from embedkit.training.engine.run_precision import precision_entries, with_precision
from embedkit.training.engine.state import (
    gather_state,
    gather_weights,
    restore_state,
    state_bytes,
    unsharded,
)


@dataclass
class _Progress:
    """The moving parts of a run between two steps."""

    module: nn.Module  # wrapped where there are peers
    optimizer: torch.optim.Optimizer
    averaged: AveragedWeights | None
    position: Position = field(default_factory=Position)


def train(
    journey: Journey,
    run: RunRecipe,
    optim: OptimRecipe,
    folder: RunFolder,
    *,
    ranks: Ranks | None = None,
    resume: bool = False,
    stop: Event | None = None,
) -> Iterator[Report]:
    """Check that the run can start, then return the iterator that makes its steps and reports them.

    Setting `stop` lets the run save its state after the step at hand and end. Stopping to iterate loses what came after the
    last state.

    Raises:
        OutputError: there is a run in the folder already, or too little disk for its checkpoints.
        TrainingError: nothing to resume, or another recipe or data; while iterating: the loss is not finite.
        DeviceError: the device does not compute in the precision asked for.
    """
    ranks = with_precision(ranks if ranks is not None else alone(), run, folder if resume else None)
    check_world(run.strategy, ranks.world)
    manifest = dict(journey.manifest()) | {"versions": versions()} | precision_entries(ranks)
    needed = state_bytes(journey.module, keep_last=run.keep_last, averaged=run.ema_decay > 0)
    if ranks.first:
        folder.check(manifest, resume=resume, bytes_needed=needed)
    course = _Course(journey, run, optim, folder, ranks)
    return _run(course, manifest, resume, stop or Event())


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


@dataclass(frozen=True)
class _Course:
    """The parts of a run that stay."""

    journey: Journey
    run: RunRecipe
    optim: OptimRecipe
    folder: RunFolder
    ranks: Ranks


def _run(
    course: _Course,
    manifest: Mapping[str, Any],  # Any: whatever JSON holds
    resume: bool,
    stop: Event,
) -> Iterator[Report]:
    for report in _steps(course, manifest, resume, stop):
        if course.ranks.first and not isinstance(report, Resumed):
            course.folder.log({"kind": type(report).__name__.lower(), **asdict(report)})
        yield report


def _steps(
    course: _Course,
    manifest: Mapping[str, Any],  # Any: whatever JSON holds
    resume: bool,
    stop: Event,
) -> Iterator[Report]:
    journey, run, folder = course.journey, course.run, course.folder
    now = _Progress(
        prepared(journey.module, course.ranks, run),
        make_optimizer(journey.module, course.optim),
        AveragedWeights(journey.module, run.ema_decay) if run.ema_decay else None,
    )
    if resume and folder.saved_steps():
        now.position, groups = folder.read_state(folder.saved_steps()[-1])
        restore_state(groups, journey.module, now.optimizer, now.averaged)
    if course.ranks.first:
        folder.begin(manifest)
        folder.trim_log(now.position.step)
    if resume:
        yield Resumed(now.position.step, ended=_is_last(now.position, run))
    stopping, last = False, _is_last(now.position, run)
    while not last and not stopping:
        report, stopping = _step(course, now, stop)
        yield report
        if report.step % run.evaluate_every == 0 or report.step == run.steps:
            yield _evaluate(course, now)
        last = _is_last(now.position, run)
        if report.step % run.save_every == 0 or last or stopping:
            yield _save(course, now)
    if last:
        yield _finish(course, now)


def _is_last(position: Position, run: RunRecipe) -> bool:
    """Say whether a run ends after this step: it made all of them, or `patience` evaluations brought nothing better."""
    if position.step >= run.steps:
        return True
    if run.patience is None or position.best_step is None:
        return False
    return position.step // run.evaluate_every - position.best_step // run.evaluate_every >= run.patience


def _step(course: _Course, now: _Progress, stop: Event) -> tuple[Step, bool]:
    started = time.perf_counter()
    journey, run, optim, ranks = course.journey, course.run, course.optim, course.ranks
    step = now.position.step
    lr = learning_rate(step, run.steps, optim)
    now.module.train()
    now.optimizer.zero_grad(set_to_none=True)
    with seeded(run.seed, step, ranks):
        shares = journey.backward(now.module, step, ranks)
    limit = optim.max_grad_norm or math.inf
    trained = [p for p in journey.module.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    sums = ranks.total(
        {**shares.values, "|tokens": shares.tokens, "|flops": shares.flops, "|stop": stop.is_set()}
    )
    grad_norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    if not math.isfinite(sums["loss"]) or not math.isfinite(grad_norm):
        raise TrainingError(
            f"step {step + 1}: the loss is {sums['loss']:g} and the gradient's length {grad_norm:g} at learning rate {lr:.3g}. "
            "Nothing was changed by this step and the states saved before it are good. "
            "Start again with a lower optim.lr, a longer optim.warmup_steps, or run.precision=fp32"
        )
    if grad_norm > limit:
        nn.utils.clip_grads_with_norm_(trained, limit, norm)
    for group in now.optimizer.param_groups:
        group["lr"] = lr
    now.optimizer.step()
    if now.averaged is not None:
        now.averaged.update(step)
    tokens = int(sums["|tokens"])
    now.position = replace(now.position, step=step + 1, tokens=now.position.tokens + tokens)
    values = {name: value for name, value in sums.items() if name[0] != "|" and name != "loss"}
    seconds = time.perf_counter() - started
    report = Step(step + 1, sums["loss"], values, lr, grad_norm, tokens, sums["|flops"], seconds)
    return report, sums["|stop"] > 0


def _evaluate(course: _Course, now: _Progress) -> Evaluated:
    journey = course.journey
    now.module.eval()
    with now.averaged.applied() if now.averaged is not None else nullcontext(), torch.no_grad():
        measured = journey.evaluate(now.module, course.ranks)
        best = now.position.best_loss is None or measured.criterion < now.position.best_loss
        if best:
            weights = gather_weights(journey.module)
            if course.ranks.first:
                course.folder.write_best(weights)
            now.position = replace(now.position, best_loss=measured.criterion, best_step=now.position.step)
    return Evaluated(now.position.step, measured.values, best)


def _save(course: _Course, now: _Progress) -> Saved:
    groups = gather_state(course.journey.module, now.optimizer, now.averaged)
    if course.ranks.first:
        course.folder.write_state(now.position, groups, course.run.keep_last)
    course.ranks.wait()
    return Saved(now.position.step, str(course.folder.output))


def _finish(course: _Course, now: _Progress) -> Saved:
    """Write the model with the best weights, which are the last ones or earlier."""
    journey, folder, ranks = course.journey, course.folder, course.ranks
    ranks.wait()
    unsharded(journey.module, folder.read_best())
    if ranks.first:
        journey.save(folder)
    ranks.wait()
    return Saved(now.position.step, str(folder.output), finished=True)


@contextmanager
def seeded(seed: int, step: int, ranks: Ranks) -> Iterator[None]:
    """Within it, torch's random numbers are a pure function of (seed, step, rank); outside they are left alone."""
    number = int(np.random.SeedSequence([seed, step, ranks.rank]).generate_state(1, np.uint64)[0] >> 1)
    with torch.random.fork_rng(devices=[ranks.device] if ranks.device.type == "cuda" else []):
        torch.manual_seed(number)
        yield
