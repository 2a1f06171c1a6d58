"""Which precisions are good enough here, and which of those is the fastest: measured once, then remembered.

The measure is the cosine to the vectors of fp32, over the sample texts. What was found is kept in the cache under the
model's fingerprint, the machine, and the runtimes that computed it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import DeviceError
from embedkit.inference.choice import Choice, PrecisionFinding
from embedkit.machine import cpu_flags, cpu_name, num_cores
from embedkit.storage.cache import keep_note, read_note
from embedkit.storage.hashing import json_digest
from embedkit.types import Float32, Precision, WantedPrecision

# `auto` takes no precision whose mean cosine to fp32 is lower.
GOOD_COSINE = 0.9999
# Each precision is measured a few times, of which the fastest counts, but for no longer than about this.
SECONDS = 1.0

Choose = Callable[[Precision], Choice]
Run = Callable[[], Float32]  # the sample's vectors, (N, E)


def settle(
    precision: WantedPrecision,
    choose: Choose,
    load: Callable[[Choice], Run],
    model: Mapping[str, Any],  # Any: whatever JSON holds
    *,
    measure: bool = True,
) -> Choice:
    """Choose what computes a model, measuring its precisions where that decides (`auto`) or is to be told (`int8`).

    `load` makes what computes the sample's vectors, `model` is its fingerprint. Without `measure` only what is known
    already counts, and `auto` is else fp32.

    Raises:
        DeviceError: nothing here computes the model in this precision.
    """
    asked = None if precision == "auto" else choose(precision)  # refused before anything is measured
    if asked is not None and precision != "int8":
        return asked
    choices = _possible(choose)
    note = f"precision/{_digest(choices, model)}.json"
    findings = _read(note, choices)
    if not findings and measure and len(choices) > 1:
        findings = tuple(_measure(choices, load))
        keep_note(note, json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    chosen = asked if asked is not None else choices[fastest_good(findings)]
    return replace(chosen, findings=findings)


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


def _measure(
    choices: Mapping[Precision, Choice], load: Callable[[Choice], Run]
) -> Iterator[PrecisionFinding]:
    exact: Float32 | None = None
    for precision, choice in choices.items():  # fp32 is the first
        run = load(choice)
        # On a CPU the time of the processor is taken: other work on the machine would decide what the clock shows.
        vectors, seconds = _timed(run, time.process_time if choice.device == "cpu" else time.perf_counter)
        exact = vectors if exact is None else exact
        near = cosines(vectors, exact)
        rate = len(vectors) / max(seconds, 1e-9)
        yield PrecisionFinding(precision, float(near.mean()), float(near.min()), float(f"{rate:.3g}"))


def _timed(run: Run, clock: Callable[[], float]) -> tuple[Float32, float]:
    """Return what a function computes, and the seconds of the fastest of a few calls."""
    vectors = run()  # not measured: weights come from the disk, threads are started
    taken: list[float] = []
    while not taken or (len(taken) < 5 and sum(taken) < SECONDS):
        started = clock()
        run()
        taken.append(clock() - started)
    return vectors, min(taken)


def cosines(vectors: Float32, exact: Float32) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows: (N, E) and (N, E) -> (N,)."""
    ours, theirs = vectors.astype(np.float64), exact.astype(np.float64)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines: NDArray[np.float64] = (ours * theirs).sum(axis=1) / np.maximum(norms, 1e-12)
    return cosines


def _digest(choices: Mapping[Precision, Choice], model: Mapping[str, Any]) -> str:
    """Name what a measurement is about: the model, this machine, and what computes each precision."""
    from embedkit.native.library import find_library

    about = {
        "model": model,
        "machine": [cpu_name(), sorted(cpu_flags()), num_cores()],
        "choices": {precision: [choice.runtime, choice.device] for precision, choice in choices.items()},
        "embedkit": [version("embedkit"), _state_of(find_library())],
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
    return findings if {finding.precision for finding in findings} == set(choices) else ()
