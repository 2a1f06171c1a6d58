"""Which precisions are good enough here, and which of those is the fastest: measured once, then remembered.

What was found is kept in the cache under the model's fingerprint, the machine, and the runtimes that computed it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from embedkit.errors import DeviceError
from embedkit.inference.choice import Choice, PrecisionFinding
from embedkit.inference.precision_measuring import GOOD_COSINE, Sample, measure_precisions
from embedkit.machine import cpu_flags, cpu_name, num_cores
from embedkit.storage.cache import keep_note, read_note
from embedkit.storage.hashing import json_digest
from embedkit.types import Precision, WantedPrecision

Choose = Callable[[Precision], Choice]


def settle(
    precision: WantedPrecision,
    choose: Choose,
    load: Callable[[Choice], Sample],
    model: Mapping[str, Any],  # Any: whatever JSON holds
    *,
    measure: bool = True,
) -> Choice:
    """Choose what computes a model, measuring its precisions where that decides (`auto`) or is to be told (`int8`).

    `load` makes what computes the sample, `model` is its fingerprint. Without `measure` only what is known
    already counts, and `auto` is else fp32. What there was no time to measure is not taken, now or later.

    Raises:
        DeviceError: nothing here computes the model in this precision.
    """
    asked = None if precision == "auto" else choose(precision)  # refused before anything is measured
    if asked is not None and precision != "int8":
        return asked
    choices = _possible(choose)
    note = f"precision/{_digest(choices, model)}.json"
    findings = _read(note, choices)
    fresh = not findings and measure and len(choices) > 1
    if fresh:
        findings = tuple(measure_precisions(choices, load))
        keep_note(note, json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    chosen = asked if asked is not None else choices[fastest_good(findings)]
    known = [finding.precision for finding in findings]
    left_out = tuple(each for each in choices if each not in known) if findings else ()
    return replace(chosen, findings=findings, unmeasured=left_out, fresh=fresh)


def fastest_good(findings: Sequence[PrecisionFinding]) -> Precision:
    """Return the fastest precision whose mean cosine to fp32 is good enough; fp32 where nothing is known."""
    good = [finding for finding in findings if finding.mean_cosine >= GOOD_COSINE]
    return max(good, key=lambda finding: finding.texts_per_second).precision if good else "fp32"


def _possible(choose: Choose) -> dict[Precision, Choice]:
    """Return the choice for each precision that is available here; fp32 always is."""
    choices: dict[Precision, Choice] = {"fp32": choose("fp32")}
    for precision in get_args(Precision):
        with suppress(DeviceError):
            choices[precision] = choose(precision)
    return choices


def _digest(choices: Mapping[Precision, Choice], model: Mapping[str, Any]) -> str:
    """Name what a measurement is about: the model, this machine, and what computes each precision."""
    from embedkit.native.dispatch import describe_level
    from embedkit.native.library import find_library

    about = {
        "model": model,
        "machine": [cpu_name(), sorted(cpu_flags()), num_cores()],
        "choices": {precision: [choice.runtime, choice.device] for precision, choice in choices.items()},
        "embedkit": [version("embedkit"), _state_of(find_library()), describe_level()],
    } | _gpu(choices)
    return json_digest(about)[:16]


def _gpu(choices: Mapping[Precision, Choice]) -> dict[str, str]:
    """Name the GPU where one computes: another one in the same machine is measured by itself."""
    if all(choice.device != "cuda" for choice in choices.values()):
        return {}
    import torch

    return {"gpu": torch.cuda.get_device_name()}


def _state_of(file: Path | None) -> list[int] | None:
    """Tell one build of the kernels from another."""
    status = None if file is None else file.stat()
    return None if status is None else [status.st_size, status.st_mtime_ns]


def _read(note: str, choices: Mapping[Precision, Choice]) -> tuple[PrecisionFinding, ...]:
    """Return what was found before; nothing where the note is missing or not whole."""
    text = read_note(note)
    try:
        findings = tuple(PrecisionFinding(**entry) for entry in json.loads(text or "[]"))
    except (ValueError, TypeError):
        return ()
    known = [finding.precision for finding in findings]
    return findings if known[:1] == ["fp32"] and set(known) <= set(choices) else ()
