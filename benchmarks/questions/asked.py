"""What a question and its answers are, and what all collections share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

MAX_ANSWERS = 3  # places that a question fits equally; what fits more of them is no question


class Answer(NamedTuple):
    """Lines of a file, from the first to the last."""

    path: str
    first: int
    last: int


@dataclass(frozen=True)
class Question:
    """What is asked for, and the places any of which is right."""

    collection: str
    kind: str
    text: str
    answers: tuple[Answer, ...]

    @property
    def half(self) -> Literal["choose", "test"]:
        return "test" if hashed(self.text) % 2 else "choose"


def hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def unambiguous(collection: str, kind: str, found: Iterable[tuple[str, Answer]]) -> list[Question]:
    """Join the answers to the same question; leave out what fits too many places."""
    joined: dict[str, Question] = {}
    for text, answer in found:
        known = joined.get(text.lower())
        joined[text.lower()] = (
            replace(known, answers=(*known.answers, answer))
            if known
            else Question(collection, kind, text, (answer,))
        )
    return [each for each in joined.values() if len(each.answers) <= MAX_ANSWERS]


def write(path: Path, text: str) -> None:
    """Write a file, unless it is there as it should be."""
    if not (path.is_file() and path.read_text(encoding="utf-8") == text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
