"""All collections, and their questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.questions.asked import Question
from benchmarks.questions.code import stdlib
from benchmarks.questions.manuals import manual, topics

COLLECTIONS: dict[str, Callable[[Path], list[Question]]] = {
    "stdlib": stdlib,
    "topics": topics,
    "manual": manual,
}


def derive(folder: Path) -> list[Question]:
    """Write the collections below a folder, and return their questions."""
    return [question for name, make in COLLECTIONS.items() for question in make(folder / name)]
