"""Several scores of a hit made one: by their values, scaled to 0 … 1, or by ranks alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embedkit.data.records import Hit
from embedkit.retrieval.options import Fusion

# Cormack, Clarke and Büttcher 2009, https://doi.org/10.1145/1571941.1572114, section 2: k = 60.
RANK_CONSTANT = 60


def min_max(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Scale the scores of one list to 0 (the lowest) … 1 (the highest): (N,) -> (N,); where all are equal, all are 1.

    Worked example: 7, 6, 4 -> 1, 2/3, 0.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not len(values):
        return values
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.ones_like(values)


def fuse(lists: Iterable[tuple[Sequence[Hit], float]], by: Fusion = "scores") -> list[Hit]:
    """Fuse ranked lists, each with its weight, into one: best first, ties by id and passage.

    scores: a hit's score is the mean over the lists of its scaled score (`min_max`; 0 where a list lacks it), by weight: 0 … 1.
        How far ahead a hit is counts: what one side is sure of is not outvoted by what the other finds by a hair.
    ranks: a hit's score is the sum over the lists of weight / (60 + rank), with ranks from 1.

    Worked example, weights 1, ranks: first in one list and second in the other: 1/61 + 1/62 = 0.0325. Scores: .9, .8, .7 in the
    one and 7, 6, 4 in the other, a hit with .9 and 6: (1 + 2/3) / 2 = 0.833.
    Source: scores: Bruch, Gai and Ingber 2023, https://arxiv.org/abs/2210.11934, section 3, convex combination;
        ranks: Cormack, Clarke and Büttcher 2009, https://doi.org/10.1145/1571941.1572114.
    """
    parts: Callable[[Sequence[Hit]], npt.NDArray[np.float64]] = (
        _scaled if by == "scores" else _reciprocal_ranks
    )
    used = [(hits, weight) for hits, weight in lists if weight]
    total = sum(weight for _, weight in used) if by == "scores" else 1.0
    fused: dict[tuple[str, int], Hit] = {}
    for hits, weight in used:
        for hit, part in zip(hits, (weight / total * parts(hits)).tolist(), strict=True):
            known = fused.get((hit.doc_id, hit.passage))
            if known is None:
                fused[hit.doc_id, hit.passage] = replace(hit, score=part)
            else:
                scores = {**known.scores, **hit.scores}
                fused[hit.doc_id, hit.passage] = replace(known, score=known.score + part, scores=scores)
    return sorted(fused.values(), key=lambda hit: (-hit.score, hit.doc_id, hit.passage))


def _scaled(hits: Sequence[Hit]) -> npt.NDArray[np.float64]:
    return min_max([hit.score for hit in hits])


def _reciprocal_ranks(hits: Sequence[Hit]) -> npt.NDArray[np.float64]:
    return 1.0 / (RANK_CONSTANT + np.arange(1, len(hits) + 1))
