"""Ranking metrics as trec_eval computes them, query by query, in float64.

1. `standing` finds the ranks of a query's relevant documents; no metric here needs anything else.
2. `metric_value` turns those ranks into one number for a `Metric` such as `ndcg@10`.

A document is relevant when its judgement is above 0: unjudged, 0 and negative count alike, as in trec_eval. Documents
stand by score, highest first; where two scores are equal as 32-bit floats, which is what trec_eval keeps, the
greater document id stands first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedkit.data.qrels import Judgements, Scores, _as_float32
from embedkit.errors import EvaluationError

MetricName = Literal["ndcg", "ndcg_exp", "map", "mrr", "recall", "p", "success"]

ALIASES: dict[str, MetricName] = {"ap": "map", "rr": "mrr", "precision": "p", "r": "recall"}
NEEDS_CUTOFF: tuple[MetricName, ...] = ("recall", "p", "success")
# A gain of 2**level - 1 stays an exact float64 up to here; real judgements end at 4 or so.
HIGHEST_EXPONENTIAL_LEVEL = 52


@dataclass(frozen=True, slots=True)
class Metric:
    """One ranking metric, cut off after rank `k` (None: the whole ranking).

    `ndcg` has linear gain (the level itself, as trec_eval); `ndcg_exp` has 2**level - 1.
    """

    name: MetricName
    k: int | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(MetricName):
            raise ValueError(f"metric name is {self.name!r}; it must be one of {_known()}")
        if self.k is not None and self.k < 1:
            raise ValueError(f"{self.name} has the cutoff {self.k}; it must be at least 1")
        if self.k is None and self.name in NEEDS_CUTOFF:
            raise ValueError(f"{self.name} has no cutoff; it needs one, as in {self.name}@10")

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"


def parse_metric(text: str) -> Metric:
    """Read a metric as people write it: `ndcg@10`, `ndcg_exp@10`, `map`, `mrr@10`, `recall@100`, `p@5`, `success@1`.

    >>> str(parse_metric("Precision@5"))
    'p@5'

    Raises:
        EvaluationError: the name is not known, or the cutoff is not a whole number above 0.
    """
    name, _, cutoff = text.strip().lower().partition("@")
    known: dict[str, MetricName] = {each: each for each in get_args(MetricName)}
    if name not in known | ALIASES:
        close = get_close_matches(name, [*known, *ALIASES], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {_known()}"
        raise EvaluationError(f"metric {text!r}: the name {name!r} is not known; {hint}")
    canonical = (known | ALIASES)[name]
    if "@" not in text:
        if canonical in NEEDS_CUTOFF:
            raise EvaluationError(
                f"metric {text!r} has no cutoff; write {canonical}@10 for the first 10 hits"
            )
        return Metric(canonical)
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", cutoff):
        raise EvaluationError(
            f"metric {text!r}: the cutoff {cutoff!r} is not a whole number above 0; write {canonical}@10"
        )
    return Metric(canonical, int(cutoff))


def _known() -> str:
    return " ".join(get_args(MetricName))


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """Where the relevant documents of one query stand in a ranking.

    Shapes:
        ranks: (R,) int64, from 1, ascending: the relevant documents that were retrieved
        levels: (R,) int64, above 0: their relevance levels
        ideal: (M,) int64, descending: the levels of every relevant document, M >= R
    """

    ranks: NDArray[np.int64]
    levels: NDArray[np.int64]
    ideal: NDArray[np.int64]


def standing(judgements: Judgements, scores: Scores) -> Standing:
    """Find the ranks of the relevant documents without sorting the documents themselves.

    >>> found = standing({"a": 2, "b": 1, "c": 1, "d": 0}, {"a": 0.1, "b": 0.7, "x": 0.7})
    >>> found.ranks.tolist(), found.levels.tolist(), found.ideal.tolist()
    ([2, 3], [1, 2], [2, 1, 1])

    Raises:
        EvaluationError: a score is not a finite 32-bit float.
    """
    relevant = {doc_id: level for doc_id, level in judgements.items() if level > 0}
    ideal = np.sort(np.fromiter(relevant.values(), np.int64, len(relevant)))[::-1]
    values = _as_float32(scores)
    found = [doc_id for doc_id in relevant if doc_id in scores]
    with np.errstate(over="ignore"):
        found_values = np.fromiter((scores[doc_id] for doc_id in found), np.float64, len(found)).astype(
            np.float32
        )
    ascending = np.sort(values)
    not_above = np.searchsorted(ascending, found_values, side="right")
    ranks = len(values) - not_above + 1
    tied = not_above - np.searchsorted(ascending, found_values, side="left")
    if (tied > 1).any():
        ranks += _places_among_ties(found, found_values, tied, list(scores), values)
    order = np.argsort(ranks)
    levels = np.fromiter((relevant[doc_id] for doc_id in found), np.int64, len(found))
    return Standing(ranks[order].astype(np.int64), levels[order], ideal)


def _places_among_ties(
    found: Sequence[str],
    found_values: NDArray[np.float32],
    tied: NDArray[np.intp],
    doc_ids: Sequence[str],
    values: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Count, for each found document, the equally scored ones with a greater id."""
    places = np.zeros(len(found), np.int64)
    for value in np.unique(found_values[tied > 1]):
        equals = sorted((doc_ids[row] for row in np.flatnonzero(values == value).tolist()), reverse=True)
        place_of = {doc_id: place for place, doc_id in enumerate(equals)}
        for position in np.flatnonzero(found_values == value).tolist():
            places[position] = place_of[found[position]]
    return places


def metric_value(metric: Metric, found: Standing) -> float:
    """Compute one metric of one query; 0 where the query has no relevant document, as trec_eval.

    The relevant documents stand at ranks 1 and 3 of the ranking, a third one is missing, k = 10:
        ndcg      levels 1, 2 against 2, 1, 1: (1 + 2/2) / (2 + 1/log2(3) + 1/2) = 0.639
        ndcg_exp  the same with gains 1, 3 against 3, 1, 1: (1 + 3/2) / (3 + 1/log2(3) + 1/2) = 0.605
        map       (1/1 + 2/3) / 3 = 0.556      mrr      1/1 = 1
        recall    2 / 3 = 0.667                p        2 / 10 = 0.2, however few hits there are
        success   1, for at least one

    Raises:
        EvaluationError: `ndcg_exp` meets a level whose gain is no exact float64.
    Source: NIST trec_eval 9; Järvelin and Kekäläinen 2002, https://doi.org/10.1145/582415.582418; the exponential
        gain is of Burges et al. 2005, https://doi.org/10.1145/1102351.1102363.
    """
    relevant = len(found.ideal)
    if not relevant:
        return 0.0
    within = len(found.ranks)
    if metric.k is not None:
        within = int(np.searchsorted(found.ranks, metric.k, side="right"))
    if metric.name in ("ndcg", "ndcg_exp"):
        return _ndcg(metric, found, within)
    if not within:
        return 0.0
    if metric.name == "map":
        return float(np.sum(np.arange(1, within + 1) / found.ranks[:within]) / relevant)
    if metric.name == "mrr":
        return 1.0 / float(found.ranks[0])
    if metric.name == "recall":
        return within / relevant
    if metric.name == "success":
        return 1.0
    assert metric.k is not None  # `p` has a cutoff: Metric checks it
    return within / metric.k


def _ndcg(metric: Metric, found: Standing, within: int) -> float:
    levels, ideal = found.levels[:within].astype(np.float64), found.ideal[: metric.k].astype(np.float64)
    if metric.name == "ndcg_exp":
        if ideal[0] > HIGHEST_EXPONENTIAL_LEVEL:
            raise EvaluationError(
                f"{metric}: a document is judged {found.ideal[0]}; a gain of 2**level - 1 goes up to level "
                f"{HIGHEST_EXPONENTIAL_LEVEL}. Use linear gain with ndcg"
            )
        levels, ideal = np.exp2(levels) - 1, np.exp2(ideal) - 1
    reached = np.sum(levels / np.log2(found.ranks[:within] + 1.0))
    return float(reached / np.sum(ideal / np.log2(np.arange(2.0, len(ideal) + 2))))
