"""Several scores of a hit made one: by their values, scaled to 0 … 1, or by ranks alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.data.records import Hit
from embedkit.retrieval.options import Fusion

# Cormack, Clarke and Büttcher 2009, https://doi.org/10.1145/1571941.1572114, section 2: k = 60.
RANK_CONSTANT = 60


@dataclass(frozen=True)
class Ranking:
    """One list to be fused: its hits, best first, its weight, and which scores count as 0 and 1 (None: its lowest and highest).

    `scores` are what the list says of the hits, where that is not their `score`.
    """

    hits: Sequence[Hit]
    weight: float = 1.0
    low: float | None = None
    high: float | None = None
    scores: Sequence[float] | None = None


def min_max(
    scores: npt.ArrayLike, low: float | None = None, high: float | None = None
) -> npt.NDArray[np.float64]:
    """Scale scores so that `low` (None: the lowest of them) is 0 and `high` (None: the highest) is 1: (N,) -> (N,).

    Where the two are equal, all are 1. Worked example: 7, 6, 4 -> 1, 2/3, 0; from 0 to 10: .7, .6, .4.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not len(values):
        return values
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    return (values - low) / (high - low) if high > low else np.ones_like(values)


def fuse(
    rankings: Iterable[Ranking], by: Fusion = "scores", *, k: int | None = None, group: bool = False
) -> list[Hit]:
    """Fuse ranked lists into one: best first, ties by id and passage; the first `k`, and with `group` the best of each document.

    scores: a hit's score is the mean over the lists of its scaled score (`min_max`; 0 where a list lacks it), by weight.
        How far ahead a hit is counts: what one side is sure of is not outvoted by what the other finds by a hair.
    ranks: a hit's score is the sum over the lists of weight / (60 + rank), with ranks from 1.

    Worked example, weights 1, ranks: first in one list and second in the other: 1/61 + 1/62 = 0.0325. Scores: .9, .8, .7 in the
    one and 7, 6, 4 in the other, a hit with .9 and 6: (1 + 2/3) / 2 = 0.833; with lows of 0 and highs of 1 and 20: (.9 + .3) / 2 = .6.
    Source: scores: Bruch, Gai and Ingber 2023, https://arxiv.org/abs/2210.11934, section 3, convex combination;
        ranks: Cormack, Clarke and Büttcher 2009, https://doi.org/10.1145/1571941.1572114.
    """
    parts: Callable[[Ranking], npt.NDArray[np.float64]] = _scaled if by == "scores" else _reciprocal_ranks
    used = [ranking for ranking in rankings if ranking.weight]
    total = sum(ranking.weight for ranking in used) if by == "scores" else 1.0
    fused: dict[tuple[str, int], tuple[float, Mapping[str, float], Hit]] = {}
    for ranking in used:
        for hit, part in zip(ranking.hits, (ranking.weight / total * parts(ranking)).tolist(), strict=True):
            place = hit.doc_id, hit.passage
            if place in fused:
                score, scores, first = fused[place]
                fused[place] = score + part, {**scores, **hit.scores}, first
            else:
                fused[place] = part, hit.scores, hit
    best = sorted(fused.items(), key=lambda item: (-item[1][0], item[0]))
    if group:
        documents: dict[str, tuple[tuple[str, int], tuple[float, Mapping[str, float], Hit]]] = {}
        for item in best:
            documents.setdefault(item[0][0], item)
        best = list(documents.values())
    return [hit.scored(score, scores) for _, (score, scores, hit) in best[:k]]


def _scaled(ranking: Ranking) -> npt.NDArray[np.float64]:
    scores = [hit.score for hit in ranking.hits] if ranking.scores is None else ranking.scores
    return min_max(scores, ranking.low, ranking.high)


def _reciprocal_ranks(ranking: Ranking) -> npt.NDArray[np.float64]:
    return 1.0 / (RANK_CONSTANT + np.arange(1, len(ranking.hits) + 1))
