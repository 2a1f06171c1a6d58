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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
    check_mining(examples, recipe, output, measured=score is not None)
    part, description = output.with_name(output.name + ".part"), description_path(output)
    wanted = described(examples.fingerprint, asdict(recipe), manifest)
    done = 0
    with output_errors(output):
        if resume and part.exists():
            if json.loads(description.read_text(encoding="utf-8")) != json.loads(wanted):
                raise TrainingError(
                    f"{part}: was mined with other data or settings. Mine again without --resume"
                )
            done = _whole_lines(part)
        else:
            output.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)  # it would not fit the description that comes first
            write_text(description, wanted)
            part.touch()
    return _mine(examples, searches, score, recipe, part, output, done)


def check_mining(examples: Examples, recipe: MiningRecipe, output: Path, *, measured: bool) -> None:
    """Refuse what cannot be mined; `measured` says that there is something to compare scores by.

    Raises:
        TrainingError, OutputError: as `mine`.
    """
    if examples.second is None:
        raise TrainingError(
            f"{examples.name}: {examples.kind} rows have no positives; mining needs pairs of texts"
        )
    if recipe.compares and not measured:
        raise TrainingError(
            "margins compare scores of one measure, and words alone have none; search densely, give a cross-encoder, or pass --no-margin"
        )
    if os.path.lexists(output):
        raise OutputError(f"{output}: already exists. Choose another --output, or remove it first")


def description_path(output: Path) -> Path:
    """Return where stands what rows were mined with."""
    return output.with_name(output.name + ".mining.json")


def described(rows_hash: str, recipe: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:  # Any: JSON
    """Say in JSON what rows are mined with."""
    return json.dumps({"recipe": recipe, "examples": rows_hash, **manifest}, indent=2, sort_keys=True) + "\n"


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
    yield MiningReport(done, len(examples))
    for mined in mine_rows(examples, range(done, len(examples)), searches, score, recipe):
        with output_errors(output, f"What is done lies in {part}; make room, and --resume goes on"):
            _append(part, mined)
        done += len(mined)
        yield MiningReport(done, len(examples))
    with output_errors(output, f"What is done lies in {part}; --resume goes on"):
        put_in_place(part, output)


def mine_rows(
    examples: Examples, rows: range, searches: Sequence[Search], score: Score | None, recipe: MiningRecipe
) -> Iterator[list[Mined]]:
    """Mine some rows, a window at a time; what is known to be right comes from all rows."""
    assert examples.second is not None
    known: dict[int, set[str]] = defaultdict(set)
    own = np.isin(examples.first, examples.first[rows.start : rows.stop])
    for query, positive in zip(examples.first[own].tolist(), examples.second[own].tolist(), strict=True):
        known[query].add(titled_text("", examples.texts[positive]))
    for start in range(rows.start, rows.stop, WINDOW):
        window = range(start, min(start + WINDOW, rows.stop))
        yield mine_window(examples, window, known, searches, score, recipe)


def line_of(row: Mined) -> bytes:
    """Return a row as it stands in a file."""
    return json.dumps(asdict(row), ensure_ascii=False).encode("utf-8") + b"\n"


def _append(part: Path, mined: Iterable[Mined]) -> None:
    with part.open("ab") as stream:
        for row in mined:
            stream.write(line_of(row))
        stream.flush()
        os.fsync(stream.fileno())
