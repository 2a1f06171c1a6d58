"""Which lists can be learnt from, and which of their candidates make up a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import TrainingError
from embedkit.training.loss import Loss
from embedkit.training.reranker.ranked_lists import Ints, RankedLists


@dataclass(frozen=True)
class ListBatch:
    """B lists of K candidates as numbers of texts.

    Shapes:
        queries: (B,); candidates, relevance: (B, K), candidates -1 where a list is shorter
    """

    queries: Ints
    candidates: Ints
    relevance: NDArray[np.float32]

    def part(self, number: int, parts: int) -> ListBatch:
        """Take every `parts`-th list from `number` on."""
        return ListBatch(
            self.queries[number::parts], self.candidates[number::parts], self.relevance[number::parts]
        )

    def weight(self, loss: Loss) -> float:
        """Count what the loss is a mean over: candidates, negatives, couples in order, or lists."""
        real = self.candidates >= 0
        match loss.mean_over:
            case "candidates":
                return float(real.sum())
            case "negatives":
                return float(real.sum() - len(real))
            case "couples":
                higher = self.relevance[:, :, None] > self.relevance[:, None, :]
                return float((higher & real[:, :, None] & real[:, None, :]).sum())
            case "lists":
                return float(len(real))


class ListSampler:
    """Chooses the candidates of lists, and texts of the data as random negatives."""

    def __init__(self, data: RankedLists, loss: Loss, *, candidates: int, random_negatives: int) -> None:
        self._loss, self._num_candidates, self._num_random = loss, candidates, random_negatives
        self._pool = np.unique(data.candidates[data.candidates >= 0])  # what random negatives are drawn from

    def sample(self, lists: RankedLists, rows: Ints, rng: np.random.Generator) -> ListBatch:
        """Choose the candidates of each list: one relevant first, then others in random order, then random texts."""
        width, extra = self._num_candidates, self._num_random
        table = np.full((len(rows), width + extra), -1, dtype=np.int64)
        values = np.zeros(table.shape, dtype=np.float32)
        for i, row in enumerate(rows):
            own = np.flatnonzero(lists.candidates[row] >= 0)
            relevance = lists.relevance[row]
            order = rng.permutation(own)
            if lists.meaning != "class":
                best = order[np.argmax(relevance[order])]
                rest = order[order != best]
                if self._loss.takes == "one positive":
                    rest = rest[relevance[rest] <= 0]
                order = np.concatenate([[best], rest])
            chosen = order[:width]
            table[i, : len(chosen)] = lists.candidates[row, chosen]
            values[i, : len(chosen)] = relevance[chosen]
            if extra:
                drawn = rng.choice(self._pool, size=extra + len(own))
                strangers = drawn[~np.isin(drawn, lists.candidates[row])][:extra]
                table[i, len(chosen) : len(chosen) + len(strangers)] = strangers
        used = (table >= 0).any(axis=0)
        return ListBatch(lists.queries[rows], table[:, used], values[:, used])


def usable_lists(data: RankedLists, loss: Loss, random_negatives: int) -> Ints:
    """Return the lists that the loss can learn from: those of single pairs all, others where candidates differ.

    Raises:
        TrainingError: there is none.
    """
    if loss.pointwise:
        return np.arange(len(data))
    real = data.candidates >= 0
    low = np.where(real, data.relevance, np.inf).min(axis=1)
    high = np.where(real, data.relevance, -np.inf).max(axis=1)
    if random_negatives and data.meaning != "teacher":
        usable = high > 0
    else:
        usable = high > low
    rows = np.flatnonzero(usable)
    if not len(rows):
        raise TrainingError(
            f"none of the {len(data)} queries has candidates of different relevance, which loss {loss.name!r} compares. "
            "Give negatives (embedkit mine), or add random ones with --set random_negatives=4"
        )
    return rows
