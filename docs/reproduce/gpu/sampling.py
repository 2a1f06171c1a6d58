"""Draw batches of pairs or single texts from all sources, so that none drowns and some batches hold near pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from data import DEVICE, Numbers, Texts
from teacher import Teacher
from torch import Tensor

POWER = 0.6  # a source is drawn in proportion to its size to this power, as sampling by temperature does (Devlin 2018, multilingual BERT)
SINGLE = 0.6  # how often a source of single texts is drawn, beside one of pairs of the same size
MIXED, CLUSTERED = 0.15, 0.4  # shares of batches: of pairs of many sources; of neighbouring clusters of one
CLUSTERED_FROM, CLUSTER = 3000, 1500  # pairs of a source that is clustered, and of a cluster
ROUNDS = 6  # of k-means
MOST_ROWS = 6000


@dataclass(frozen=True)
class Batch:
    """Numbers of texts: (n, 2) for pairs, (n, 1) for single texts."""

    rows: Numbers

    @property
    def paired(self) -> bool:
        return self.rows.shape[1] == 2


class Sampler:
    """Batches of about `tokens` tokens, each source in a fresh order each time that it is used up."""

    def __init__(
        self,
        texts: Texts,
        teacher: Teacher,
        tokens: int,
        seed: int,
        *,
        clustered: bool = True,
        only: Callable[[str], bool] = lambda source: True,
    ) -> None:
        self._texts, self._tokens = texts, tokens
        self._rng = np.random.default_rng(seed)
        pairs = [rows for source, rows in texts.pairs.items() if only(source)]
        singles = [rows[:, None] for source, rows in texts.singles.items() if only(source)]
        self._sources: list[Numbers] = pairs + singles
        weights = np.array(
            [len(rows) ** POWER for rows in pairs] + [SINGLE * len(rows) ** POWER for rows in singles]
        )
        self._weights = weights / weights.sum()
        self._pair_weights = weights[: len(pairs)] / weights[: len(pairs)].sum()
        self._orders = [self._rng.permutation(len(rows)) for rows in self._sources]
        self._at = [0] * len(self._sources)
        self._clusters = {
            number: clusters(rows, teacher)
            for number, rows in enumerate(pairs)
            if clustered and len(rows) > CLUSTERED_FROM
        }

    def batch(self, most: int = MOST_ROWS) -> Batch:
        chance = self._rng.random()
        if chance < MIXED:
            numbers = self._rng.choice(len(self._pair_weights), size=24, p=self._pair_weights)
            rows = np.concatenate([self._take(number, 80) for number in numbers])
            self._rng.shuffle(rows)
            return Batch(self._fit(rows)[:most])
        number = int(self._rng.choice(len(self._sources), p=self._weights))
        source = self._sources[number]
        some = source[:: max(1, len(source) // 500)]
        wanted = min(int(self._tokens / self._sizes(some).mean() * 1.3) + 8, most)
        if number in self._clusters and chance < MIXED + CLUSTERED:
            return Batch(self._fit(self._near(number, wanted)))
        return Batch(self._fit(self._take(number, wanted)))

    def _take(self, number: int, wanted: int) -> Numbers:
        source = self._sources[number]
        if self._at[number] + wanted > len(source):
            self._orders[number], self._at[number] = self._rng.permutation(len(source)), 0
        chosen = self._orders[number][self._at[number] : self._at[number] + wanted]
        self._at[number] += len(chosen)
        return source[chosen]

    def _near(self, number: int, wanted: int) -> Numbers:
        """Take whole clusters: within one, the other pairs' texts are hard negatives.

        Source: Hofstätter et al. 2021, TAS-B, https://arxiv.org/abs/2104.06967, section 4.
        """
        found = list[Numbers]()
        count = 0
        while count < wanted and len(found) < 40:
            cluster = self._clusters[number][int(self._rng.integers(len(self._clusters[number])))]
            found.append(self._sources[number][self._rng.permutation(cluster)[: wanted - count]])
            count += len(found[-1])
        return np.concatenate(found)

    def _sizes(self, rows: Numbers) -> Numbers:
        return (self._texts.lens[rows] + 2).sum(axis=1)

    def _fit(self, rows: Numbers) -> Numbers:
        count = int(self._sizes(rows).cumsum().searchsorted(self._tokens, "right"))
        return rows[: max(1, count)]


@torch.no_grad()
def clusters(pairs: Numbers, teacher: Teacher) -> list[Numbers]:
    """Cluster pairs (P, 2) by the direction of the sum of both teacher vectors, with k-means on the sphere: places in `pairs`."""
    points = F.normalize(teacher.of(pairs).sum(1), dim=1)
    centres = points[torch.randperm(len(points), device=DEVICE)[: max(2, len(pairs) // CLUSTER)]]
    nearest = (points @ centres.T).argmax(1)
    for _ in range(ROUNDS):
        centres = F.normalize(torch.zeros_like(centres).index_add(0, nearest, points), dim=1)
        nearest = (points @ centres.T).argmax(1)
    return _groups(nearest)


def _groups(labels: Tensor) -> list[Numbers]:
    found = labels.cpu().numpy()
    order = found.argsort(kind="stable")
    cuts = np.flatnonzero(np.diff(found[order])) + 1
    return [group for group in np.split(order, cuts) if len(group)]
