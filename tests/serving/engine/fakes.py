"""Models at the seam between the engine and what computes: one that can be held, and one that fails on a word."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Float32
from tests.encoding.fakes import CountingBackend

PATIENCE_SECONDS = 20.0  # of a test that waits for another thread; it fails long before anybody loses theirs


class HeldBackend(CountingBackend):
    """Computes as `CountingBackend` does, but only while the gate is open; `failing` are the ids at which it raises."""

    def __init__(self, dimension: int = 32, *, failing: frozenset[int] = frozenset()) -> None:
        super().__init__(dimension)
        self.failing = failing
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def pooled(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        self.entered.release()
        assert self.gate.wait(PATIENCE_SECONDS)
        vectors = super().pooled(batch, skip=skip)
        if self.failing & set(batch.input_ids.tolist()):
            raise RuntimeError("the model fell over")
        return vectors

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold whatever is computed until the end of the block."""
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()

    def wait_until_computing(self) -> None:
        assert self.entered.acquire(timeout=PATIENCE_SECONDS)


def expected(lengths: Sequence[int], sums: Sequence[int] | NDArray[np.int64], dimension: int = 32) -> Float32:
    """What the backend gives for sequences of so many tokens with these sums of ids."""
    out = np.ones((len(lengths), dimension), dtype=np.float32)
    out[:, 0], out[:, 1] = lengths, sums
    return out


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until another thread has come so far."""
    stop = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < stop, "the other thread did not come so far"
        time.sleep(0.001)
