"""Which rows make up a batch: a pure function of the data, the recipe and the step, so that starting in the middle is free.

1. Each step takes one data set, drawn in proportion to (number of rows) ** `mixing`.
2. A data set is gone through epoch by epoch, each a permutation seeded by (seed, data set, epoch).
3. An epoch is cut into batches: `distinct` ones hold no text twice, `labelled` ones hold several texts of each label.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import TrainingError
from embedkit.training.rows.examples import Examples

Ints = NDArray[np.int64]
Style = Literal["plain", "distinct", "labelled"]


def split_rows(count: int, share: float, *, most: int | None = None) -> tuple[Ints, Ints]:
    """Part the rows at random into those to train on and those held out: at least 2 of them and `most` at the most.

    Which are held out depends on their number alone, so that more steps or another seed keep them out too.
    """
    order = np.random.default_rng(0).permutation(count)
    size = max(2, round(share * count))
    if most is not None:
        size = min(size, most)
    return order[size:], order[:size]


class Shuffled:
    """An endless series of batches over rows that are shuffled again in every epoch."""

    def __init__(self, rows: Ints, *, batch_size: int, seed: int) -> None:
        self._rows, self._size, self._seed = rows, batch_size, seed
        self._epoch = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> Ints:
        return self._rows[np.random.default_rng([self._seed, epoch, 1]).permutation(len(self._rows))]

    def batch(self, step: int) -> Ints:
        """Return the rows of a step: a window of the epochs one after another."""
        places = np.arange(step * self._size, (step + 1) * self._size)
        epochs = places // len(self._rows)
        return np.concatenate(
            [self._epoch(int(e))[places[epochs == e] % len(self._rows)] for e in np.unique(epochs)]
        )


class RowSampler:
    """An endless series of batches of one data set's rows."""

    def __init__(
        self,
        examples: Examples,
        rows: Ints,
        *,
        batch_size: int,
        style: Style,
        seed: Sequence[int],
        texts_per_label: int = 4,
    ) -> None:
        """Check that there is at least one batch.

        Raises:
            TrainingError: there are fewer rows than a batch holds, or too few that may stand in one batch together.
        """
        self._examples, self._rows, self._size = examples, rows, batch_size
        self._style, self._seed, self._per_label = style, tuple(seed), texts_per_label
        self.plan = lru_cache(maxsize=2)(self._plan)
        if len(rows) < batch_size:
            smaller = f"Lower data.batch_size (--batch-size) to {len(rows):,} at most, or give more rows"
            raise TrainingError(
                f"{examples.name}: {len(rows):,} rows to train on; a batch takes {batch_size:,}. "
                f"{smaller if len(rows) >= 2 else 'Give more rows'}"  # a batch of one tells nothing apart
            )
        self._per_epoch = len(self.plan(0))
        if not self._per_epoch:
            raise TrainingError(self._why_not())

    def _why_not(self) -> str:
        examples = self._examples
        if self._style == "labelled":
            return (
                f"{examples.name}: no batch of {self._size} rows has two texts of one label and one of another; "
                f"{len(examples):,} rows have {len(examples.classes):,} labels. Raise data.batch_size or give more texts a label"
            )
        column = examples.first if examples.second is None else examples.second
        distinct = len(np.unique(column[self._rows]))
        what = "distinct texts" if examples.second is None else "distinct positives"
        return (
            f"{examples.name}: {len(self._rows):,} rows with {distinct:,} {what} make no batch of {self._size}, "
            "in which no text may stand twice: each row's negatives are the others'. "
            + (
                "With a single one there is no negative; take another loss, or give labels"
                if distinct == 1
                else f"Lower data.batch_size to {max(2, distinct // 2)} or less"
            )
        )

    def batch(self, number: int) -> Ints:
        """Return the rows of batch `number`, counted from 0 over all epochs."""
        epoch, place = divmod(number, self._per_epoch)
        # Epochs of distinct batches may differ by one or two in number; the first one's decides, and stands in for one without any.
        plan = self.plan(epoch) or self.plan(0)
        return plan[place % len(plan)]

    def _plan(self, epoch: int) -> list[Ints]:
        rng = np.random.default_rng([*self._seed, epoch])
        if self._style == "labelled":
            return self._labelled(rng)
        order = self._rows[rng.permutation(len(self._rows))]
        if self._style == "plain":
            return [order[i : i + self._size] for i in range(0, len(order) - self._size + 1, self._size)]
        return list(distinct_batches(self._examples.text_columns, order, self._size))

    def _labelled(self, rng: np.random.Generator) -> list[Ints]:
        """Cut each label's shuffled rows into small groups, and batches out of the shuffled groups."""
        assert self._examples.labels is not None
        order = self._rows[rng.permutation(len(self._rows))]
        order = order[np.argsort(self._examples.labels[order], kind="stable")]
        bounds = np.flatnonzero(np.diff(self._examples.labels[order])) + 1
        groups = [
            part[i : i + self._per_label]
            for part in np.split(order, bounds)
            for i in range(0, len(part) - 1, self._per_label)  # a text alone has no positive
        ]
        shuffled = [groups[i] for i in rng.permutation(len(groups))]
        found, batch = [], np.empty(0, dtype=np.int64)
        for group in shuffled:
            batch = np.concatenate([batch, group])
            if len(batch) >= self._size:
                batch = batch[: self._size]
                if len(np.unique(self._examples.labels[batch])) > 1:
                    found.append(batch)
                batch = np.empty(0, dtype=np.int64)
        return found


def distinct_batches(columns: Ints, order: Ints, size: int) -> Iterator[Ints]:
    """Cut rows into batches in which no text occurs twice; a row that clashes waits for the next batch.

    What cannot fill a batch in the end is left out of this epoch.

    Shapes:
        columns: (R, C) numbers of texts, -1 for none; order: (N,) rows
        returns: batches of (size,) rows each
    """
    texts_of: list[frozenset[int]] = [frozenset(row) - {-1} for row in columns[order].tolist()]
    coming = iter(range(len(order)))
    waiting: deque[int] = deque()
    while True:
        batch: list[int] = []
        taken: set[int] = set()
        for _ in range(len(waiting)):  # those that waited come first
            place = waiting.popleft()
            if len(batch) < size and taken.isdisjoint(texts_of[place]):
                batch.append(place)
                taken |= texts_of[place]
            else:
                waiting.append(place)
        while len(batch) < size:
            new = next(coming, None)
            if new is None:
                return
            if taken.isdisjoint(texts_of[new]):
                batch.append(new)
                taken |= texts_of[new]
            else:
                waiting.append(new)
        yield order[batch]


class Mixture:
    """Which data set each step takes, and how many batches it gave before."""

    def __init__(self, sizes: Sequence[int], *, steps: int, mixing: float, seed: int) -> None:
        weights = np.asarray(sizes, dtype=np.float64) ** mixing
        self.shares = weights / weights.sum()
        rng = np.random.default_rng([seed, 3])
        self._choices = rng.choice(len(sizes), size=steps, p=self.shares)
        self._places = np.zeros(steps, dtype=np.int64)
        for number in range(len(sizes)):
            chosen = self._choices == number
            self._places[chosen] = np.arange(int(chosen.sum()))

    def at(self, step: int) -> tuple[int, int]:
        """Return the number of the data set of a step, and of the batch within it."""
        return int(self._choices[step]), int(self._places[step])
