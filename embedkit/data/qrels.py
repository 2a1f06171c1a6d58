"""Judgments and runs: which document answers which query, and how a system ranked them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import EvaluationError

Judgements: TypeAlias = Mapping[str, int]  # doc_id -> relevance level
Scores: TypeAlias = Mapping[str, float]  # doc_id -> score, higher is better
Qrels: TypeAlias = Mapping[str, Judgements]  # query_id -> judgements
Run: TypeAlias = Mapping[str, Scores]  # query_id -> scores


def ranking(scores: Scores) -> list[str]:
    """Order the document ids as the metrics here and trec_eval do: by score, then by id, both descending."""
    return [
        doc_id for _, doc_id in sorted(zip(_as_float32(scores).tolist(), scores, strict=True), reverse=True)
    ]


def _as_float32(scores: Scores) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what overflows is named below
        values = np.fromiter(scores.values(), np.float64, len(scores)).astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        doc_id, score = list(scores.items())[int(np.argmin(finite))]
        raise EvaluationError(
            f"the score of document {doc_id!r} is {score}; a score must be a finite 32-bit float. "
            "Look at what made the run: a ranking cannot be told from it"
        )
    return values
