"""Evaluate embeddings on pairs and triplets of texts, by the cosine of their vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedkit.data.one_file import open_rows
from embedkit.data.reading import refuse_surrogates
from embedkit.errors import EvaluationError, RecordError
from embedkit.evaluation.agreement import average_precision, best_accuracy, best_f1, pearson, spearman

Floats = NDArray[np.float64]
Embed: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]  # N texts -> (N, E)

STS_COLUMNS = ("sentence1", "sentence2", "score")
PAIR_COLUMNS = ("sentence1", "sentence2", "label")
TRIPLET_COLUMNS = ("anchor", "positive", "negative")
CLUSTERING_COLUMNS = ("text", "label")


def detect_columns(path: str | Path) -> tuple[str, str, str]:
    """Tell by its first row which of the three kinds of file this is, and return the columns of that kind.

    Raises:
        RecordError: it has the columns of none, or there is no row.
    """
    where, row = next(iter(open_rows(path)), ("", None))
    if row is None:
        raise RecordError(f"{path}: there is no row in it; each needs the columns of one of {_kinds()}")
    for columns in (TRIPLET_COLUMNS, STS_COLUMNS, PAIR_COLUMNS):
        if all(column in row for column in columns):
            return columns
    raise RecordError(
        f"{where}: columns here: {', '.join(row) or 'none'}; wanted those of one of {_kinds()}. Name the columns"
    )


def _kinds() -> str:
    return "; ".join(", ".join(columns) for columns in (STS_COLUMNS, PAIR_COLUMNS, TRIPLET_COLUMNS))


def read_columns(path: str | Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Read the named columns of a `.tsv`, `.csv`, `.jsonl` or `.parquet` file, plain, `.gz` or `.zst`.

    Raises:
        RecordError: a column is missing somewhere, its value is no text or number, or there is no row.
    """
    return [cells for _, cells in _rows(path, columns)]


def _rows(path: str | Path, columns: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Read (place, cells) of each row."""
    rows = [(where, tuple(_cell(row, column, where) for column in columns)) for where, row in open_rows(path)]
    if not rows:
        raise RecordError(f"{path}: there is no row in it; each needs the columns {', '.join(columns)}")
    return rows


# Any: whatever JSON holds.
def _cell(row: Mapping[str, Any], column: str, where: str) -> str:
    if column not in row:
        raise RecordError(
            f"{where}: missing column {column!r}; columns here: {', '.join(row) or 'none'}. Name another column"
        )
    found = row[column]
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        raise RecordError(
            f"{where}: {column!r} is {type(found).__name__}; it must be text or a number. Convert it"
        )
    refuse_surrogates(str(found), where, column)
    return str(found)


def read_scored_pairs(
    path: str | Path, columns: tuple[str, str, str] = STS_COLUMNS
) -> list[tuple[str, str, float]]:
    """Read pairs of texts with a number: similarity, or a label of 0 and 1 with `PAIR_COLUMNS`.

    Raises:
        RecordError: as `read_columns`, or a number is none or not finite.
    """
    pairs = []
    for where, (first, second, text) in _rows(path, columns):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise RecordError(
                f"{where}: {columns[2]!r} is {text!r}; it must be a finite number. Name another column"
            )
        pairs.append((first, second, number))
    return pairs


@dataclass(frozen=True, slots=True)
class SimilarityResult:
    """Correlation of cosines with human scores; multiply by 100 for the figures of papers."""

    spearman: float
    pearson: float
    num_pairs: int


def evaluate_similarity(pairs: Sequence[tuple[str, str, float]], embed: Embed) -> SimilarityResult:
    """Correlate the cosine of each pair with its score, as the STS tasks do.

    Raises:
        EvaluationError: fewer than 2 pairs, all scores or cosines equal, or vectors without a direction.
    """
    scores = [score for _, _, score in pairs]
    _refuse_constant(scores, "scores")  # before the texts are encoded, which takes long
    cosines = _cosines([(first, second) for first, second, _ in pairs], embed)
    _refuse_constant(cosines.tolist(), "cosines")
    return SimilarityResult(spearman(scores, cosines), pearson(scores, cosines), len(pairs))


def _refuse_constant(values: Sequence[float], what: str) -> None:
    if len(values) > 1 and len(set(values)) == 1:
        raise EvaluationError(
            f"all {len(values)} {what} are {values[0]:g}; a correlation needs at least two different ones. "
            f"Look at what made them"
        )


@dataclass(frozen=True, slots=True)
class PairResult:
    """How well a cosine tells pairs labelled 1 from pairs labelled 0, at its best thresholds."""

    average_precision: float
    f1: float
    f1_threshold: float
    accuracy: float
    accuracy_threshold: float
    num_pairs: int
    num_positives: int


def evaluate_pairs(pairs: Sequence[tuple[str, str, float]], embed: Embed) -> PairResult:
    """Classify pairs by cosine. The thresholds are chosen on these very pairs, so F1 and accuracy are upper bounds.

    Raises:
        EvaluationError: a label is neither 0 nor 1, one of both is missing, or vectors have no direction.
    """
    cosines = _cosines([(first, second) for first, second, _ in pairs], embed)
    labels = [label for _, _, label in pairs]
    f1, accuracy = best_f1(labels, cosines), best_accuracy(labels, cosines)
    return PairResult(
        average_precision(labels, cosines),
        f1.value,
        f1.threshold,
        accuracy.value,
        accuracy.threshold,
        len(pairs),
        int(sum(labels)),
    )


@dataclass(frozen=True, slots=True)
class TripletResult:
    """The share of triplets whose anchor is nearer to the positive; a tie (within rounding) is not nearer."""

    accuracy: float
    num_ties: int
    num_triplets: int


# Vectors are float32: cosines closer than this may differ by rounding alone.
TIE = 1e-7


def evaluate_triplets(triplets: Sequence[tuple[str, str, str]], embed: Embed) -> TripletResult:
    """Compare cos(anchor, positive) with cos(anchor, negative).

    Raises:
        EvaluationError: there is no triplet, or vectors have no direction.
    """
    both = [(anchor, positive) for anchor, positive, _ in triplets]
    both += [(anchor, negative) for anchor, _, negative in triplets]
    positive, negative = _cosines(both, embed).reshape(2, -1)
    margins = positive - negative
    ties = np.abs(margins) <= TIE
    return TripletResult(float(np.mean((margins > 0) & ~ties)), int(ties.sum()), len(triplets))


def _cosines(pairs: Sequence[tuple[str, str]], embed: Embed) -> Floats:
    """Compute the cosine of each pair, embedding each distinct text once: (N,)."""
    if not pairs:
        raise EvaluationError("there are no texts to compare; give at least one pair or triplet")
    row_of = {text: row for row, text in enumerate(dict.fromkeys(text for pair in pairs for text in pair))}
    vectors = unit_vectors(list(row_of), embed)
    first = vectors[[row_of[text] for text, _ in pairs]]
    second = vectors[[row_of[text] for _, text in pairs]]
    cosines: Floats = np.einsum("ne,ne->n", first, second)
    return cosines


def unit_vectors(texts: Sequence[str], embed: Embed) -> Floats:
    """Embed texts and scale each vector to length 1: (N, E) float64; a zero vector, of a text without tokens, stays zero.

    Raises:
        ValueError: `embed` returns another shape than (N, E).
        EvaluationError: a vector holds NaN or infinity; the message quotes its text.
    """
    vectors = np.asarray(embed(texts), np.float64)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise ValueError(f"embed returned shape {vectors.shape} for {len(texts)} texts; it must be (N, E)")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = ~np.isfinite(lengths)
    if wrong.any():
        text = texts[int(np.argmax(wrong))]
        shown = text if len(text) <= 60 else text[:60] + "…"
        raise EvaluationError(
            f"{int(wrong.sum())} of {len(texts)} vectors have NaN or infinity in it, the first for {shown!r}; a cosine needs a "
            "direction. Check the model with this text"
        )
    unit: Floats = vectors / np.where(lengths == 0, 1, lengths)
    return unit
