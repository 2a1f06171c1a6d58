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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedkit.data.records import Hit, titled_text
from embedkit.errors import OutputError, TrainingError
from embedkit.storage.files import output_errors, put_in_place, write_text
from embedkit.training.rows.examples import Examples

Floats = NDArray[np.float32]
# Q queries and a depth -> the hits of each, best first
Search = Callable[[Sequence[str], int], list[list[Hit]]]
# queries and for each some texts -> a score for each text, higher is nearer
Score = Callable[[Sequence[str], Sequence[Sequence[str]]], list[list[float]]]
WINDOW = 256  # queries searched together, and written together


@dataclass(frozen=True, kw_only=True)
class MiningRecipe:
    """What counts as a hard negative.

    Of the ranks `first_rank` to `last_rank` (from 1, known positives not counted) up to `num_negatives` are taken: the nearest (`pick`
    top) or any (`random`). A candidate is left out whose score exceeds the positive's less `margin`, or the positive's times
    (1 - `relative_margin`); None does not compare. The measure is the cross-encoder's score or the cosine.
    """

    num_negatives: int = 5
    first_rank: int = 1
    last_rank: int = 50
    margin: float | None = 0.0
    relative_margin: float | None = None
    pick: Literal["top", "random"] = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_negatives < 1:
            raise ValueError(f"num_negatives is {self.num_negatives}; it must be at least 1")
        if not 1 <= self.first_rank <= self.last_rank:
            raise ValueError(
                f"ranks are {self.first_rank} to {self.last_rank}; they must start at 1 or later and not end before they start"
            )
        if self.relative_margin is not None and not 0 <= self.relative_margin < 1:
            raise ValueError(f"relative_margin is {self.relative_margin}; it must be at least 0 and below 1")

    @property
    def compares(self) -> bool:
        return self.margin is not None or self.relative_margin is not None

    def limit(self, positive: float) -> float:
        """Return the highest score that a negative may have."""
        limits = [np.inf]
        if self.margin is not None:
            limits.append(positive - self.margin)
        if self.relative_margin is not None:
            limits.append(positive - self.relative_margin * abs(positive))
        return float(min(limits))


@dataclass(frozen=True)
class Mined:
    """One row with its negatives; `likely_positive` is the nearest candidate that was left out for its score."""

    query: str
    positive: str
    negatives: list[str]
    negative_scores: list[float | None]
    positive_score: float | None
    candidates: int
    too_near: int
    likely_positive: str | None = None
    likely_positive_score: float | None = None


@dataclass(frozen=True)
class MiningReport:
    """`done` of `total` rows are written."""

    done: int
    total: int


@dataclass
class Audit:
    """What was mined, in numbers and examples.

    `suspects` are the candidates that exceed their positive by most: rows whose data lacks a right answer, or has a wrong one.
    """

    rows: int = 0
    rows_without: int = 0
    negatives: int = 0
    candidates: int = 0
    too_near: int = 0
    rows_with_suspects: int = 0
    suspects: list[dict[str, Any]] = field(default_factory=list)  # Any: texts and scores

    def add(self, row: Mined, *, examples: int = 10) -> None:
        self.rows += 1
        self.negatives += len(row.negatives)
        self.rows_without += not row.negatives
        self.candidates += row.candidates
        self.too_near += row.too_near
        if row.likely_positive_score is None or row.positive_score is None:
            return
        self.rows_with_suspects += 1
        entry = {
            "query": row.query,
            "positive": row.positive,
            "likely_positive": row.likely_positive,
            "exceeds_by": round(row.likely_positive_score - row.positive_score, 4),
        }
        self.suspects = sorted([*self.suspects, entry], key=lambda each: -each["exceeds_by"])[:examples]

    def table(self) -> list[tuple[str, str]]:
        """Return (measure, value) rows."""
        share = self.too_near / self.candidates if self.candidates else 0.0
        return [
            ("rows", f"{self.rows:,}"),
            ("negatives a row", f"{self.negatives / max(1, self.rows):.2f}"),
            ("rows without any", f"{self.rows_without:,}"),
            ("candidates looked at", f"{self.candidates:,}"),
            ("left out as likely right", f"{self.too_near:,} ({share:.1%})"),
            ("rows with such a candidate", f"{self.rows_with_suspects:,}"),
        ]


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


def mine_window(
    examples: Examples,
    rows: Sequence[int],
    known: dict[int, set[str]],
    searches: Sequence[Search],
    score: Score | None,
    recipe: MiningRecipe,
) -> list[Mined]:
    """Mine some rows; `known` holds the positives of each query, as `titled_text` has them."""
    assert examples.second is not None
    texts = examples.texts
    numbers = list(dict.fromkeys(int(examples.first[row]) for row in rows))
    queries = {number: texts[number] for number in numbers}
    depth = recipe.last_rank + max(len(known[number]) for number in numbers)
    found = [dict(zip(numbers, search(list(queries.values()), depth), strict=True)) for search in searches]
    candidates = {
        number: _window(
            [hits[number] for hits in found], known[number] | {titled_text("", queries[number])}, recipe
        )
        for number in numbers
    }
    pairs = [(int(examples.first[row]), texts[int(examples.second[row])]) for row in rows]
    scores: list[list[float]] | None = None
    if score is not None:
        asked = [[positive, *candidates[number]] for number, positive in pairs]
        scores = score([queries[number] for number, _ in pairs], asked)
    mined = []
    for place, (row, (number, positive)) in enumerate(zip(rows, pairs, strict=True)):
        own = None if scores is None else scores[place]
        mined.append(_choose(row, queries[number], positive, candidates[number], own, recipe))
    return mined


def _window(hit_lists: Sequence[Sequence[Hit]], known: set[str], recipe: MiningRecipe) -> list[str]:
    """Return the texts of the rank window of each search, taken in turn, each text once."""
    windows = []
    for hits in hit_lists:
        texts = (titled_text(hit.title, hit.text) for hit in hits)
        unknown = dict.fromkeys(text for text in texts if text not in known)
        windows.append(list(unknown)[recipe.first_rank - 1 : recipe.last_rank])
    longest = max(map(len, windows), default=0)
    turns = (window[i] for i in range(longest) for window in windows if i < len(window))
    return list(dict.fromkeys(turns))


def _choose(
    row: int,
    query: str,
    positive: str,
    candidates: Sequence[str],
    scores: Sequence[float] | None,
    recipe: MiningRecipe,
) -> Mined:
    kept = list(range(len(candidates)))
    near: list[int] = []
    if scores is not None:
        limit = recipe.limit(scores[0])
        near = [i for i in kept if scores[i + 1] > limit]
        kept = [i for i in kept if scores[i + 1] <= limit]
    if recipe.pick == "random":
        rng = np.random.default_rng([recipe.seed, row])
        kept = sorted(rng.permutation(kept)[: recipe.num_negatives].tolist())
    kept = kept[: recipe.num_negatives]
    worst = max(near, key=lambda i: scores[i + 1] if scores is not None else 0.0, default=None)
    return Mined(
        query,
        positive,
        [candidates[i] for i in kept],
        [None if scores is None else round(float(scores[i + 1]), 5) for i in kept],
        None if scores is None else round(float(scores[0]), 5),
        len(candidates),
        len(near),
        None if worst is None else candidates[worst],
        None if worst is None or scores is None else round(float(scores[worst + 1]), 5),
    )


def audit(output: Path, *, examples: int = 10) -> Audit:
    """Read mined rows back and sum them up."""
    result = Audit()
    with output.open(encoding="utf-8") as stream:
        for line in stream:
            result.add(Mined(**json.loads(line)), examples=examples)
    return result
