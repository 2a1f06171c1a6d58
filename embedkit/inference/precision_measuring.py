"""What each precision of a model is worth here: its cosine to fp32 and its speed over the sample texts, in a few seconds.

1. fp32 computes the parts of the sample, the smallest first, as many as its share of the time allows; then all of them again,
   since the first time weights come from the disk and threads are started, for as long as the share lasts.
2. Each other precision does the same with the same parts. One that is far slower is left after the first of them.
3. Where fp32 has shown that there is no time for another precision, the rest stays unmeasured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedkit.inference.choice import Choice, PrecisionFinding
from embedkit.types import Float32, Precision

# `auto` takes no precision whose mean cosine to fp32 is lower.
GOOD_COSINE = 0.9999
# All precisions together; what has begun is not interrupted.
BUDGET_SECONDS = 5.0
# Of several calls of one precision the fastest counts. There are no more where this is used up, or where it is clear already:
# where the precision is so much faster or slower than the best before it.
SECONDS, MOST_CALLS, CLEARLY = 1.0, 5, 1.5

Clock = Callable[[], float]


@dataclass(frozen=True)
class Sample:
    """What computes the sample in one precision: the vectors (N, E) of its parts from `start` up to, not including, `stop`.

    The first part is small, and each later one as large as all before it together.
    """

    parts: int
    compute: Callable[[int, int], Float32]


def measure_precisions(
    choices: Mapping[Precision, Choice], load: Callable[[Choice], Sample]
) -> Iterator[PrecisionFinding]:
    """Yield what was found of each precision that there was time for; fp32 is the first."""
    deadline = time.perf_counter() + BUDGET_SECONDS
    share = BUDGET_SECONDS / len(choices)
    exact: _Measured | None = None
    best = 0.0  # texts a second
    for precision, choice in choices.items():
        began = time.perf_counter()
        if exact is not None and began + exact.cost > deadline:
            return
        sample = load(choice)
        measured = _Measured(choice, began, exact)
        measured.begin(sample, began + share)
        near = cosines(measured.vectors, (exact or measured).vectors[: len(measured.vectors)])
        measured.go_on(sample, began + share, best if near.mean() >= GOOD_COSINE else np.inf)
        exact = exact or measured
        rate = measured.rate
        if near.mean() >= GOOD_COSINE:
            best = max(best, rate)
        yield PrecisionFinding(precision, float(near.mean()), float(near.min()), float(f"{rate:.3g}"))


class _Measured:
    """What one precision computed, and how long it took."""

    def __init__(self, choice: Choice, began: float, exact: _Measured | None) -> None:
        # On a CPU the time of the processor is taken: other work on the machine would decide what the clock shows.
        self.clock: Clock = time.process_time if choice.device == "cpu" else time.perf_counter
        self.began, self.exact = began, exact
        # Seconds of the clock on the wall: of the parts the last time, and of all until there was a first result.
        self.lap = self.cost = 0.0
        self.found: list[Float32] = []
        self.first: list[float] = []  # seconds of each part, the first time
        self.again: list[float] = []  # seconds of all parts together, from the second time on

    @property
    def vectors(self) -> Float32:
        return np.concatenate(self.found)

    @property
    def rate(self) -> float:
        """Texts a second: by the first time where that is all there is of this precision or of fp32."""
        seconds = min(self.again, default=sum(self.first))
        if self.exact is None or self.again:
            return len(self.vectors) / max(seconds, 1e-9)
        # The parts differ in length, so that a few of them are compared with the same ones of fp32.
        of_exact = sum(self.exact.first[: len(self.first)])
        return self.exact.rate * of_exact / max(seconds, 1e-9)

    def begin(self, sample: Sample, until: float) -> None:
        """Compute the parts for the first time: of fp32 those that there is time for, of others the same."""
        for part in range(sample.parts if self.exact is None else len(self.exact.found)):
            wall, started = time.perf_counter(), self.clock()
            self.found.append(sample.compute(part, part + 1))
            self.first.append(self.clock() - started)
            now = time.perf_counter()
            self.lap += now - wall
            self.cost = now - self.began
            # The next part is as large as those up to here, and then all of them are to be computed again.
            if self.exact is None and now + 3 * self.lap > until:
                return
            if self.exact is not None and self._is_far_slower(self.exact):
                return

    def _is_far_slower(self, exact: _Measured) -> bool:
        return sum(self.first) > 2 * CLEARLY * sum(exact.first[: len(self.first)])

    def go_on(self, sample: Sample, until: float, best: float) -> None:
        """Compute the parts again, as often as it takes to tell this precision from the best one before it."""
        exact = self.exact
        if exact is not None and (not exact.again or len(self.found) < len(exact.found)):
            return
        while not self._is_clear(best) and time.perf_counter() + self.lap <= until:
            wall, started = time.perf_counter(), self.clock()
            sample.compute(0, len(self.found))
            self.again.append(self.clock() - started)
            self.lap = time.perf_counter() - wall
            if len(self.again) == 1:
                self.cost = time.perf_counter() - self.began

    def _is_clear(self, best: float) -> bool:
        if not self.again:
            return False
        if len(self.again) == MOST_CALLS or sum(self.again) >= SECONDS:
            return True
        return bool(best) and not best / CLEARLY < self.rate < best * CLEARLY


def cosines(vectors: Float32, exact: Float32) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows: (N, E) and (N, E) -> (N,)."""
    ours, theirs = vectors.astype(np.float64), exact.astype(np.float64)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines: NDArray[np.float64] = (ours * theirs).sum(axis=1) / np.maximum(norms, 1e-12)
    return cosines
