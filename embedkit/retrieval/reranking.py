"""Reranking the hits of a search: all candidates, or as deep as a time budget allows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.data.records import Hit, titled_text
from embedkit.retrieval.fusion import min_max
from embedkit.retrieval.reranker import Reranker
from embedkit.types import Float32

# Where a time budget may end: after 4, 8, 16 and then every 16 candidates. Fixed places, so that a ranking depends on the
# depth that was reached and on nothing else.
FIRST_CHUNK = 4
LARGEST_CHUNK = 16
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reranked:
    """Hits in their new order; the first `depth` of the old order were scored, the rest follow as they were."""

    hits: list[Hit]
    depth: int


def parse_budget(text: str) -> float:
    """Turn "200ms", "1.5s" or "2" (seconds) into seconds.

    Raises:
        ValueError: it is none of these, or not above 0.
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(ms|s|)", text.strip())
    seconds = float(match[1]) * (0.001 if match[2] == "ms" else 1.0) if match else 0.0
    if seconds <= 0:
        raise ValueError(f"{text!r} is not a time budget; wanted one such as 200ms or 1.5s")
    return seconds


def rerank_hits(
    reranker: Reranker,
    query: str,
    hits: Sequence[Hit],
    *,
    candidates: int | None = None,
    weight: float | None = None,
    budget_seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Reranked:
    """Score the first `candidates` hits together with the query and order them by that; ties keep their order.

    `scores` of a scored hit gains "rerank", which is also its `score`. With a `weight` below 1 (None: the reranker's own) `score` is what
    `blend` makes of both stages. Hits beyond the depth follow in their old order with
    scores of 1, 2, 3 … below the lowest, so that a higher score is better throughout. With a budget the first four are
    always scored, and no more are begun once they would end too late.

    Raises:
        ValueError: the reranker does not give one finite score a text, the budget is not above 0, or the weight is out of range.
    """
    if budget_seconds is not None and not budget_seconds > 0:
        raise ValueError(f"budget_seconds is {budget_seconds}; it must be above 0")
    texts = [titled_text(hit.title, hit.text) for hit in hits[:candidates]]
    if budget_seconds is None:
        scores = checked(reranker.score(query, texts), len(texts)) if texts else np.empty(0, np.float32)
    else:
        scores = score_within(reranker, query, texts, budget_seconds=budget_seconds, clock=clock)
    weight = reranker.weight if weight is None else weight
    return Reranked(ordered(hits, scores, weight=weight), len(scores))


def blend(first: Sequence[float], scores: Float32, weight: float) -> Floats:
    """Join the scores of two stages for the texts of one query: (D,), (D,) -> (D,).

    weight * reranker + (1 - weight) * first stage, each scaled to 0 … 1 (`min_max`); with weight 1 the reranker's as they are.

    Worked example: .9, .8, .7 and logits 2, 4, 0 with weight .5: (1 + .5) / 2, (.5 + 1) / 2, 0 = .75, .75, 0.
    Raises:
        ValueError: the weight is not from 0 to 1.
    Source: Lin, Nogueira and Yates 2021, https://arxiv.org/abs/2010.06467, section 3.2.2, interpolation of scores.
    """
    if not 0 <= weight <= 1:
        raise ValueError(
            f"the reranker's weight is {weight}; it must be from 0 (the first stage alone) to 1 (the reranker alone)"
        )
    if weight == 1:
        return scores.astype(np.float64)
    joined: Floats = weight * min_max(scores) + (1 - weight) * min_max(first)
    return joined


def ordered(hits: Sequence[Hit], scores: Float32, *, weight: float = 1.0) -> list[Hit]:
    """Order hits by the scores of the first of them; the rest follow, each 1 below the one before."""
    depth = len(scores)
    final = blend([hit.score for hit in hits[:depth]], scores, weight)
    scored = [
        hit.scored(joined, {**hit.scores, "rerank": score})
        for hit, score, joined in zip(hits[:depth], scores.tolist(), final.tolist(), strict=True)
    ]
    scored.sort(key=lambda hit: -hit.score)
    if not depth:
        return list(hits)
    lowest = scored[-1].score
    return scored + [hit.scored(lowest - i, hit.scores) for i, hit in enumerate(hits[depth:], 1)]


def score_within(
    reranker: Reranker,
    query: str,
    texts: Sequence[str],
    *,
    budget_seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Float32:
    """Score texts from the first on for as long as the budget lasts: -> (D,) float32 of the first D.

    What the next chunk will take is told from the characters of those before.
    """
    started = clock()
    found: list[Float32] = []
    done, characters = 0, 0
    while done < len(texts):
        chunk = texts[done : done + min(max(done, FIRST_CHUNK), LARGEST_CHUNK)]
        size = sum(map(len, chunk)) + len(chunk) * (len(query) + 1)  # 1: no text is free
        if found:
            spent = clock() - started
            if spent * (1 + size / characters) > budget_seconds:
                break
        found.append(checked(reranker.score(query, chunk), len(chunk)))
        done += len(chunk)
        characters += size
    return np.concatenate(found) if found else np.empty(0, np.float32)


def checked(scores: Float32, count: int) -> Float32:
    """Refuse scores that could not be ranked.

    Raises:
        ValueError: there is not one finite score for each of `count` texts.
    """
    if scores.shape != (count,):
        raise ValueError(f"the reranker gave scores of shape {scores.shape} for {count} texts")
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{int((~np.isfinite(scores)).sum())} of the reranker's {count} scores are not finite. "
            "Check the model with fp32"
        )
    return scores
