"""Hard negatives: for each query and its positive, documents that a search finds near and that are still no answers.

1. search for the query, densely, by words, or both; keep the ranks of the window
2. leave out what is known to be right: the query's positives, in whichever row they stand
3. score what is left and the positive by one measure: the cross-encoder if there is one, else the cosine
4. leave out what scores too near the positive: it is likely right, too, and nobody wrote so
5. take the first of the rest, or some at random

Source: Moreira et al. 2024, https://arxiv.org/abs/2407.15831, section 3 (margins relative to the positive); Qu et al. 2021,
https://arxiv.org/abs/2010.08191, section 3.2 (a cross-encoder as the judge).
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedkit.data.records import titled_text
from embedkit.errors import OutputError, TrainingError
from embedkit.storage.files import output_errors, put_in_place, write_text
from embedkit.training.mining.choosing import Mined, Score, Search, mine_window
from embedkit.training.mining.recipe import MiningRecipe
from embedkit.training.rows.examples import Examples

WINDOW = 256  # queries searched together, and written together


@dataclass(frozen=True)
class MiningReport:
    """`done` of `total` rows are written."""

    done: int
    total: int


def mine(
    examples: Examples,
    searches: Sequence[Search],
    score: Score | None,
    recipe: MiningRecipe,
    output: Path,
    *,
    manifest: dict[str, Any],  # Any: whatever JSON holds
    resume: bool = False,
) -> Iterator[MiningReport]:
    """Check what is there, then return the iterator that writes a row of JSON for each row of `examples`, in their order.

    Rows go to OUTPUT.part, which takes its name when the last is written; to resume counts its lines. OUTPUT.mining.json says what
    they were mined with.

    Raises:
        TrainingError: the rows have no second text, margins are asked for without anything to measure them by, or the rows to resume
            were mined with other settings.
        OutputError: the output exists, or (while iterating, too) cannot be written.
    """
    if examples.second is None:
        raise TrainingError(
            f"{examples.name}: {examples.kind} rows have no positives; mining needs pairs of texts"
        )
    if score is None and recipe.compares:
        raise TrainingError(
            "margins compare scores of one measure, and words alone have none; search densely, give a cross-encoder, or pass --no-margin"
        )
    if os.path.lexists(output):
        raise OutputError(f"{output}: already exists. Choose another --output, or remove it first")
    part, described = output.with_name(output.name + ".part"), output.with_name(output.name + ".mining.json")
    wanted = json.loads(json.dumps({"recipe": asdict(recipe), "examples": examples.fingerprint} | manifest))
    done = 0
    with output_errors(output):
        if resume and part.exists():
            if json.loads(described.read_text(encoding="utf-8")) != wanted:
                raise TrainingError(
                    f"{part}: was mined with other data or settings. Mine again without --resume"
                )
            done = _whole_lines(part)
        else:
            output.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)  # it would not fit the description that comes first
            write_text(described, json.dumps(wanted, indent=2) + "\n")
            part.touch()
    return _mine(examples, searches, score, recipe, part, output, done)


def _whole_lines(path: Path) -> int:
    """Count the lines that end, and cut off one that a kill left half written."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end != len(content):
        os.truncate(path, end)
    return content[:end].count(b"\n")


def _mine(
    examples: Examples,
    searches: Sequence[Search],
    score: Score | None,
    recipe: MiningRecipe,
    part: Path,
    output: Path,
    done: int,
) -> Iterator[MiningReport]:
    assert examples.second is not None
    known: dict[int, set[str]] = defaultdict(set)
    for query, positive in zip(examples.first.tolist(), examples.second.tolist(), strict=True):
        known[query].add(titled_text("", examples.texts[positive]))
    yield MiningReport(done, len(examples))
    for start in range(done, len(examples), WINDOW):
        rows = range(start, min(start + WINDOW, len(examples)))
        mined = mine_window(examples, rows, known, searches, score, recipe)
        with output_errors(output, f"What is done lies in {part}; make room, and --resume goes on"):
            _append(part, mined)
        yield MiningReport(rows.stop, len(examples))
    with output_errors(output, f"What is done lies in {part}; --resume goes on"):
        put_in_place(part, output)


def _append(part: Path, mined: Iterable[Mined]) -> None:
    with part.open("ab") as stream:
        for row in mined:
            stream.write(json.dumps(asdict(row), ensure_ascii=False).encode("utf-8") + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
