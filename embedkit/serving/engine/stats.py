"""What the engine counts, for metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from embedkit.serving.engine.pace import Pace
from embedkit.serving.engine.work import KINDS, Kind

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # upper bounds of the histogram, inclusive


@dataclass(frozen=True)
class KindTotals:
    """What was done of one kind of work: answered requests and their texts, computed tokens and batches."""

    requests: int = 0
    texts: int = 0
    tokens: int = 0
    batches: int = 0


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """The engine at one moment, and since it began.

    `waiting_tokens` are of all windows in the queue, being tokenized (estimated), waiting or running; `waiting_requests` have
    nothing computed yet, `running_requests` have. `queue_seconds` is the sum over requests from their coming to their first
    batch. `batch_sizes` counts batches by sequences, for each bound of `BATCH_SIZES` those above the bound before, and at last
    those above all; `batch_sequences` is the sum. `tokens_per_second` is of the last batches, while they were computed; None before the first.
    """

    waiting_tokens: int
    waiting_requests: int
    running_requests: int
    totals: Mapping[Kind, KindTotals]
    compute_seconds: float
    queue_seconds: float
    batch_sizes: tuple[int, ...]
    batch_sequences: int
    refused: int
    cancelled: int
    errors: int
    tokens_per_second: float | None


@dataclass
class Counters:
    """The running sums behind `EngineStats`; the engine's lock guards them."""

    requests: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    texts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    tokens: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    batches: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    batch_sizes: list[int] = field(default_factory=lambda: [0] * (len(BATCH_SIZES) + 1))
    batch_sequences: int = 0
    compute_seconds: float = 0.0
    queue_seconds: float = 0.0
    refused: int = 0
    cancelled: int = 0
    errors: int = 0
    pace: Pace = field(default_factory=Pace)

    def answered(self, kind: Kind, texts: int) -> None:
        self.requests[kind] += 1
        self.texts[kind] += texts

    def computed(self, kind: Kind, sequences: int, tokens: int, seconds: float) -> None:
        """Count one batch."""
        self.tokens[kind] += tokens
        self.batches[kind] += 1
        self.batch_sizes[bisect_left(BATCH_SIZES, sequences)] += 1
        self.batch_sequences += sequences
        self.compute_seconds += seconds
        self.pace.add(tokens, seconds)

    def stats(self, *, waiting_tokens: int, waiting: int, running: int) -> EngineStats:
        return EngineStats(
            waiting_tokens=waiting_tokens,
            waiting_requests=waiting,
            running_requests=running,
            totals={
                kind: KindTotals(self.requests[kind], self.texts[kind], self.tokens[kind], self.batches[kind])
                for kind in KINDS
            },
            compute_seconds=self.compute_seconds,
            queue_seconds=self.queue_seconds,
            batch_sizes=tuple(self.batch_sizes),
            batch_sequences=self.batch_sequences,
            refused=self.refused,
            cancelled=self.cancelled,
            errors=self.errors,
            tokens_per_second=self.pace.per_second,
        )
