"""Whether hits are right, and how systems compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean

from benchmarks.questions.asked import Question
from embedkit.data.records import Hit
from embedkit.evaluation.significance import randomisation_test

K = 10  # hits that are looked at


def right_rank(question: Question, hits: Sequence[Hit]) -> int | None:
    """Return the rank, from 1, of the first hit that shares a line with an answer."""
    for rank, hit in enumerate(hits, 1):
        lines = hit.place.lines if hit.place is not None else None
        if lines is not None and any(
            hit.doc_id == path and lines[0] <= last and first <= lines[1]
            for path, first, last in question.answers
        ):
            return rank
    return None


def scores(ranks: Sequence[int | None]) -> dict[str, float]:
    return {
        "hits@1": round(mean(rank == 1 for rank in ranks), 3),
        "hits@5": round(mean(rank is not None and rank <= 5 for rank in ranks), 3),
        f"MRR@{K}": round(mean(map(reciprocal, ranks)), 3),
    }


def reciprocal(rank: int | None) -> float:
    return 0.0 if rank is None else 1 / rank


def groups(questions: Sequence[Question]) -> Iterator[tuple[str, str, list[int]]]:
    """Yield the name, the half and the numbers of the questions of each part of a set, and of all of it."""
    names = [f"{each.collection}, {each.kind}" for each in questions]
    parts = list(dict.fromkeys(names))
    for part in parts if len(parts) == 1 else [*parts, "all"]:
        for half in ("choose", "test"):
            numbers = [
                n for n, each in enumerate(questions) if part in (names[n], "all") and each.half == half
            ]
            if numbers:
                yield part, half, numbers


Row = dict[str, str | float | int]


@dataclass
class Answered:
    """Questions with the rank that each system gave their right hit, in the same order."""

    questions: list[Question] = field(default_factory=list)
    ranks: dict[str, list[int | None]] = field(default_factory=dict)

    def add(self, other: Answered) -> None:
        self.questions += other.questions
        for system, ranks in other.ranks.items():
            self.ranks.setdefault(system, []).extend(ranks)

    def rows(self, base: str) -> Iterator[Row]:
        """Yield a row for each part of the questions and each system, compared with one of these."""
        for part, half, numbers in groups(self.questions):
            for system, found in self.ranks.items():
                row: Row = {"part": part, "half": half, "questions": len(numbers), "system": system}
                row |= scores([found[n] for n in numbers])
                if system != base:
                    differences = [reciprocal(found[n]) - reciprocal(self.ranks[base][n]) for n in numbers]
                    row |= {"difference": round(mean(differences), 3)}
                    row |= {"p": round(randomisation_test(differences, rounds=10_000).p_value, 4)}
                yield row


def tables(answered: Answered, bases: Sequence[str]) -> list[Row]:
    """Return the rows, each system beside the base of its mode."""
    rows: list[Row] = []
    for base in bases:
        own = {
            system: ranks
            for system, ranks in answered.ranks.items()
            if len(bases) == 1 or system.partition(",")[0] == base.partition(",")[0]
        }
        rows += Answered(answered.questions, own).rows(base)
    return rows
