"""Training on the device gives the losses of the CPU, for every journey, loss and family."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import torch

from embedkit.errors import DeviceError
from embedkit.training.engine.loop import train
from embedkit.training.engine.precision import choose_precision
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.recipes import Precision
from embedkit.training.engine.reporting import Step
from embedkit.training.engine.run_folder import RunFolder

from .journeys import Make, contrastive, distillation, pretraining, reranker, silence
from .models import FAMILIES
from .setting import Setting
from .stages import Case, Measured, SkipError

# Relative differences; the third loss includes the rounding of two steps.
LOSS_LIMITS: dict[Precision, float] = {"fp32": 1e-4, "bf16": 3e-2}
GRADIENT_LIMITS: dict[Precision, float] = {"fp32": 1e-3, "bf16": 1e-1}
CACHED = ("data.micro_tokens=128",)
# Kind of rows, and settings.
LOSSES: list[tuple[str, tuple[str, ...]]] = [
    ("pairs", ()),
    ("pairs", ("loss.symmetric=true", "loss.learn_temperature=true", "loss.matryoshka=[16,32]")),
    ("pairs", ("loss.false_negatives=margin", "loss.adaptive_layers=true")),
    ("triplets", CACHED),
    ("triplets", ("loss.name=triplet",)),
    ("scored", ("loss.name=cosent",)),
    ("scored", ("loss.name=angle",)),
    ("scored", ("loss.name=cosine_regression",)),
    ("classified", ("loss.name=pair_classification", *CACHED)),
    ("alike", ("loss.name=contrastive",)),
    ("alike", ("loss.name=online_contrastive",)),
    *(
        ("labelled", (f"loss.name=batch_{name}_triplet", "data.held_out=0.3"))
        for name in ("all", "hard", "semi_hard")
    ),
    ("texts", ("loss.name=tsdae", *CACHED)),
    ("vectors", ("loss.name=embedding_mse",)),
    ("distilled", ("loss.name=margin_mse",)),
    ("distilled", ("loss.name=kl_distillation",)),
]
STUDENTS: dict[str, tuple[str, ...]] = {
    "layers": ("student.layers=[1]",),
    "dimension, mse": ("student.layers=[0]", "student.dimension=16", "loss=mse"),
    "static": ("student.kind=static",),
}
LISTS = {
    "binary": ("softmax", "bce", "ranknet", "listnet", "listmle"),
    "graded": ("lambda", "mse"),
    "teacher": ("margin_mse", "kl"),
    "class": ("classes",),
}
IN_BF16 = (
    "pairs none",
    "cached",
    "layers",
    "binary softmax",
)  # names of runs that end so are trained in bf16, too
_numbers = itertools.count()


def cases(setting: Setting) -> Iterator[Case]:
    place = setting.place
    runs: dict[str, Make] = {
        f"pretraining, pairs {kind}": partial(pretraining, place, f"masking.next_sentence={kind}")
        for kind in ("none", "order", "next")
    }
    for family in FAMILIES:
        runs[f"contrastive {family}, cached"] = partial(contrastive, place, "pairs", *CACHED, family=family)
    for kind, settings in LOSSES:
        runs[f"contrastive {' '.join((kind, *settings))}"] = partial(contrastive, place, kind, *settings)
    for name, student in STUDENTS.items():
        runs[f"distillation {name}"] = partial(distillation, place, *student)
    for kind, losses in LISTS.items():
        for loss in losses:
            runs[f"reranker {kind} {loss}"] = partial(reranker, place, kind, f"loss={loss}", "exits=[1]")
    for name, make in runs.items():
        yield f"{name} fp32", partial(_compare, setting, make, "fp32")
        if name.endswith(IN_BF16):
            yield f"{name} bf16", partial(_compare, setting, make, "bf16")


def _compare(setting: Setting, make: Make, precision: Precision) -> Measured:
    """Train three steps without dropout, on the device and in fp32 on the CPU."""
    need(setting.device, precision)
    found = _steps(setting, make, setting.device, precision)
    wanted = _steps(setting, make, "cpu", "fp32")
    return Measured(
        {
            "losses": _apart([step.loss for step in found], [step.loss for step in wanted]),
            "first gradient's length": _apart([found[0].grad_norm], [wanted[0].grad_norm]),
        },
        {"losses": LOSS_LIMITS[precision], "first gradient's length": GRADIENT_LIMITS[precision]},
    )


def need(device: str, precision: Precision) -> None:
    """Skip a case if the device does not compute in a precision."""
    try:
        choose_precision(torch.device(device), precision)
    except DeviceError as exc:
        raise SkipError(str(exc)) from exc


def run_folder(setting: Setting) -> RunFolder:
    """Return a new folder for a run."""
    return RunFolder(setting.place / f"run-{next(_numbers)}")


def _steps(setting: Setting, make: Make, device: str, precision: Precision) -> list[Step]:
    run = make("run.steps=3", f"run.precision={precision}")
    silence(run.journey.module)
    reports = train(run.journey, run.run, run.optim, run_folder(setting), ranks=alone(device))
    return [report for report in reports if isinstance(report, Step)]


def _apart(found: Sequence[float], wanted: Sequence[float]) -> float:
    return max(abs(one - other) / max(abs(other), 1e-6) for one, other in zip(found, wanted, strict=True))
