"""Judgments and runs: which document answers which query, and how a system ranked them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class UnknownIds:
    """Judgements that point nowhere: queries without a text, documents that the collection lacks."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]

    def notes(self) -> tuple[str, ...]:
        """Say how many and which, in a sentence each; nothing where all is well."""
        notes = []
        if self.queries:
            notes.append(
                f"{len(self.queries)} judged queries are unknown and count as 0: {name_some(self.queries)}"
            )
        if self.documents:
            notes.append(
                f"{len(self.documents)} judged documents are not in the collection and cannot be found: "
                f"{name_some(self.documents)}"
            )
        return tuple(notes)


def find_unknown(qrels: Qrels, *, query_ids: Collection[str], doc_ids: Collection[str]) -> UnknownIds:
    """Look up every judged query and every relevant document.

    A document judged 0 or less may be missing: no metric could have counted it.

    Raises:
        EvaluationError: nothing is known, so that every value would be 0.
    """
    relevant = dict.fromkeys(
        doc_id for judgements in qrels.values() for doc_id, level in judgements.items() if level > 0
    )
    known_queries, known_documents = set(query_ids), set(doc_ids)
    unknown = UnknownIds(
        tuple(query_id for query_id in qrels if query_id not in known_queries),
        tuple(doc_id for doc_id in relevant if doc_id not in known_documents),
    )
    for what, missing, judged, known in (
        ("queries", unknown.queries, len(qrels), query_ids),
        ("relevant documents", unknown.documents, len(relevant), doc_ids),
    ):
        if missing and len(missing) == judged:
            example = repr(next(iter(known))) if known else "none"
            raise EvaluationError(
                f"none of the {judged} judged {what} is known: {name_some(missing)}; known are {len(known)} "
                f"such as {example}. Check that judgements and collection belong together"
            )
    return unknown


def name_some(ids: Collection[str], most: int = 5) -> str:
    """List the first few ids, and how many more there are."""
    names = ", ".join(repr(each) for each in list(ids)[:most])
    return names if len(ids) <= most else f"{names} and {len(ids) - most} more"
