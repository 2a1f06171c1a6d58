"""What must not change the result: stopping and resuming, cached gradients, gradient checkpointing, compiling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from embedkit.checkpoint.names import Family
from embedkit.model.config import SentenceConfig
from embedkit.model.sentence import SentenceEncoder
from embedkit.tokenization.batch import TokenBatch
from embedkit.training.engine.grad_cache import cached_backward
from embedkit.training.engine.loop import train
from embedkit.training.engine.micro_batches import PackedEncoder, forward
from embedkit.training.engine.precision import choose_precision
from embedkit.training.engine.ranks import alone, prepared
from embedkit.training.engine.recipes import Precision
from embedkit.training.engine.reporting import Step
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.losses import info_nce

from .check_training import CACHED, need, run_folder
from .journeys import Make, Run, contrastive, distillation, pretraining, reranker, weights_of
from .models import family_config, random_batch, random_encoder
from .packages import WANTED, missing
from .setting import Setting
from .stages import Case, Measured, SkipError

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
# As a share of how far the weights moved. Wrong dropout after a resume would change most of that.
RESUME_LIMITS: dict[Precision, float] = {"fp32": 1e-4, "bf16": 1e-2}
GRADIENT_LIMITS: dict[Precision, float] = {"fp32": 1e-4, "bf16": 2e-2}
CACHING: tuple[Family, ...] = ("bert", "mpnet", "modernbert")


def cases(setting: Setting) -> Iterator[Case]:
    place = setting.place
    runs: dict[str, Make] = {
        "pretraining": partial(pretraining, place, "run.ema_decay=0.5", "run.accumulate=2"),
        "contrastive, cached": partial(contrastive, place, "pairs", *CACHED),
        "distillation": partial(distillation, place, "student.layers=[1]", "student.dropout=0.1"),
        "reranker": partial(reranker, place, "binary"),
    }
    for precision in PRECISIONS:
        for name, make in runs.items():
            yield f"resumed {name} {precision}", partial(_resume, setting, make, precision)
        for family in CACHING:
            yield f"cached gradients {family} {precision}", partial(_cached, setting, family, precision)
        yield f"recomputed layers {precision}", partial(_layers, setting, "gradient_checkpointing", precision)


def compiled_cases(setting: Setting) -> Iterator[Case]:
    for precision in PRECISIONS:
        yield f"compiled layers {precision}", partial(_layers, setting, "compile", precision)


def _resume(setting: Setting, make: Make, precision: Precision) -> Measured:
    """Compare six steps in one go with a run stopped in step 5 and resumed from step 3, with dropout."""
    need(setting.device, precision)
    settings = ("run.steps=6", "run.save_every=3", "run.evaluate_every=3", f"run.precision={precision}")
    start = weights_of(make(*settings).journey.module)
    whole, again, stopped = run_folder(setting), run_folder(setting), run_folder(setting)
    for folder in (whole, again):
        _train(setting, make(*settings), folder)
    _train(setting, make(*settings), stopped, stop_in=5)
    _train(setting, make(*settings), stopped, resume=True)
    weights, repeated, resumed = (_last_weights(folder) for folder in (whole, again, stopped))
    way = _distance(weights, start)
    noise = _distance(repeated, weights) / way
    # Some kernels add in varying order: the resumed run must be about as close as a repeated one.
    return Measured(
        {"resumed": _distance(resumed, weights) / way, "repeated": noise},
        {"resumed": max(RESUME_LIMITS[precision], 4 * noise), "repeated": 10 * RESUME_LIMITS[precision]},
    )


def _train(
    setting: Setting, run: Run, folder: RunFolder, *, stop_in: int | None = None, resume: bool = False
) -> None:
    reports = train(run.journey, run.run, run.optim, folder, ranks=alone(setting.device), resume=resume)
    for report in reports:
        if isinstance(report, Step) and report.step == stop_in:
            return


def _last_weights(folder: RunFolder) -> dict[str, Tensor]:
    return load_file(folder.states / f"{folder.saved_steps()[-1]:08d}" / "weights.safetensors")


def _distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return float(sum(((one[name] - tensor).double() ** 2).sum() for name, tensor in other.items()) ** 0.5)


def _cached(setting: Setting, family: Family, precision: Precision) -> Measured:
    """Compare cached gradients with those of a single graph over the same parts, with dropout."""
    need(setting.device, precision)
    ranks = alone(setting.device)
    ranks = replace(ranks, precision=choose_precision(ranks.device, precision))
    model = SentenceEncoder(random_encoder(family_config(family)), SentenceConfig(normalize=True))
    module = PackedEncoder(model).to(setting.device).train()
    lengths = np.array([60, 60, 31, 16], np.int64)
    parts = [random_batch(lengths, model.encoder.config.vocab_size, seed=seed) for seed in range(4)]

    def encode(part: TokenBatch) -> Tensor:
        return forward(module, part, ranks)

    def loss(rows: Tensor) -> Tensor:
        return info_nce(*rows.chunk(2), temperature=0.05)

    gradients = []
    for cached in (False, True):
        module.zero_grad()
        torch.manual_seed(1)
        if cached:
            cached_backward(encode, parts, loss)
        else:
            torch.autograd.backward(loss(torch.cat([encode(part) for part in parts])))
        gradients.append(_gradients(module))
    return _same_gradients(gradients, precision)


def _layers(setting: Setting, name: str, precision: Precision) -> Measured:
    """Compare the gradients of a pretraining step with and without a boolean setting of the run."""
    if name == "compile" and (setting.device == "cpu" or missing({"triton": WANTED["triton"]})):
        raise SkipError("compiled layers need a GPU and triton")
    need(setting.device, precision)
    ranks, gradients = alone(setting.device), []
    ranks = replace(ranks, precision=choose_precision(ranks.device, precision))
    for value in ("false", "true"):
        dropout = ("model.dropout=0.0",) if name == "compile" else ()
        run = pretraining(setting.place, f"run.{name}={value}", f"run.precision={precision}", *dropout)
        module = prepared(run.journey.module, ranks, run.run).train()
        torch.manual_seed(1)
        run.journey.backward(module, 0, ranks)
        gradients.append(_gradients(run.journey.module))
    return _same_gradients(gradients, precision)


def _gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter.grad.cpu().clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def _same_gradients(found: Sequence[Mapping[str, Tensor]], precision: Precision) -> Measured:
    plain, other = found
    size = _distance(plain, {name: torch.zeros_like(tensor) for name, tensor in plain.items()})
    return Measured({"error": _distance(other, plain) / size}, {"error": GRADIENT_LIMITS[precision]})
