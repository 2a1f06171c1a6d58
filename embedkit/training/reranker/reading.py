"""Files of any kind of rows -> lists to train a reranker on.

| row | list |
|---|---|
| query, positive (and negatives) | relevance 1, then 0 for each negative |
| query, text, label 0 or 1 (or a score) | the texts of equal queries together, relevance as given |
| query, texts, scores (a teacher's) or labels | as given |
| query, positive, negatives, margins | a teacher's scores: 0 for the positive, minus the margin for each negative |
| two sentences and a class of several | one candidate, its class |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.data.beir import folder_and_split
from embedkit.data.formats import format_of
from embedkit.data.paths import expand_inputs
from embedkit.data.records import ReadOptions
from embedkit.errors import RecordError
from embedkit.training.reranker.ranked_lists import MEANINGS, Meaning, RankedLists, joined, lay_out
from embedkit.training.rows.columns import Kind, Role, find_columns
from embedkit.training.rows.examples import Examples
from embedkit.training.rows.files import Row, read_rows
from embedkit.training.rows.reading import read_examples

KINDS: tuple[Kind, ...] = ("distilled", "scored", "classified", "triplets", "pairs")
WITH_COLUMNS = ("jsonl", "csv", "tsv", "parquet")


def read_ranked_lists(
    sources: Sequence[str],
    *,
    columns: Mapping[Role, str] | None = None,
    classes: bool = False,
    read: ReadOptions | None = None,
) -> RankedLists:
    """Read files of any of the kinds above, or retrieval sets FOLDER[:SPLIT]; all must mean the same.

    `classes` takes labels as classes also where they are 0 and 1. Of `read` the delimiter and the header count.

    Raises:
        RecordError: a file or row cannot be read, or two files differ in what their numbers mean.
    """
    parts = [_read(source, columns or {}, classes, read or ReadOptions()) for source in sources]
    if not parts:
        raise RecordError("no training data was given; name files")
    for source, part in zip(sources, parts, strict=True):
        if (part.meaning, part.classes) != (parts[0].meaning, parts[0].classes):
            raise RecordError(
                f"{source}: its rows are {_described(part)}; those of {sources[0]} are {_described(parts[0])}. "
                "Train on files of one kind"
            )
    return joined(parts)


def _described(lists: RankedLists) -> str:
    return MEANINGS[lists.meaning] + (f" {', '.join(lists.classes)}" if lists.classes else "")


def _read(source: str, columns: Mapping[Role, str], classes: bool, read: ReadOptions) -> RankedLists:
    folder, _ = folder_and_split(source)
    given = dict(columns)
    if not (Path(folder) / "qrels").is_dir():
        where, first = next(_rows(source, read), (source, {}))
        if "texts" in first:
            return _read_lists(source, read)
        named = find_columns(list(first), given, where).named
        if "second" not in named and "query" in first and "text" in first and "first" not in given:
            given |= {"first": "query", "second": "text"}
    examples = read_examples(source, columns=given, kinds=KINDS, purpose="a reranker", read=read)
    return _from_examples(examples, classes)


def _rows(source: str, read: ReadOptions) -> Iterator[tuple[str, Row]]:
    """Read rows of files that have columns.

    Raises:
        RecordError: a file is plain text, or cannot be read.
    """
    for path in expand_inputs([source]):
        if format_of(path) not in WITH_COLUMNS:
            raise RecordError(
                f"{path.as_posix()}: plain text has no columns; a reranker needs rows such as query, positive, negatives. "
                "Give .jsonl, .csv, .tsv or .parquet"
            )
    yield from read_rows(source, read)


def _read_lists(source: str, read: ReadOptions) -> RankedLists:
    """Read rows of a query, its texts, and scores (a teacher's) or labels (grades)."""
    numbers: dict[str, int] = {}
    queries: list[int] = []
    candidates: list[list[int]] = []
    relevance: list[list[float]] = []
    key = ""
    for where, row in _rows(source, read):
        key = key or ("labels" if "labels" in row else "scores")
        query, texts, values = _list_row(where, row, key)
        queries.append(numbers.setdefault(query, len(numbers)))
        candidates.append([numbers.setdefault(text, len(numbers)) for text in texts])
        relevance.append(values)
    lists = lay_out(list(numbers), queries, candidates, relevance, "teacher" if key == "scores" else "graded")
    if key == "labels" and np.isin(lists.relevance[lists.candidates >= 0], (0, 1)).all():
        return replace(lists, meaning="binary")
    return lists


def _list_row(where: str, row: Row, key: str) -> tuple[str, list[str], list[float]]:
    query, texts, values = row.get("query"), row.get("texts"), row.get(key)
    if (
        not isinstance(query, str)
        or not query.strip()
        or not isinstance(texts, list)
        or not isinstance(values, list)
        or not texts
        or not all(isinstance(text, str) for text in texts)
        or not all(isinstance(value, int | float) for value in values)
    ):
        raise RecordError(
            f"{where}: wanted a string 'query', a list of strings 'texts' and a list of numbers {key!r}; "
            f"keys here: {', '.join(row)}. Correct the row"
        )
    if len(texts) != len(values):
        raise RecordError(
            f"{where}: {len(texts)} texts and {len(values)} {key}; there must be one for each text"
        )
    if not np.isfinite(values).all():
        raise RecordError(f"{where}: {key!r} holds a number that is not finite. Correct the row")
    return query, texts, [float(value) for value in values]


def _from_examples(examples: Examples, classes: bool) -> RankedLists:
    assert examples.second is not None
    positives = [[int(number)] for number in examples.second]
    if examples.kind in ("pairs", "triplets", "distilled"):
        count = 0 if examples.negatives is None else examples.negatives.shape[1]
        negatives = (
            np.empty((len(examples), 0), np.int64) if examples.negatives is None else examples.negatives
        )
        relevance = np.zeros((len(examples), 1 + count), dtype=np.float32)
        if examples.margins is not None:
            relevance[:, 1:] = -np.nan_to_num(examples.margins)
        else:
            relevance[:, 0] = 1
        return RankedLists(
            texts=examples.texts,
            queries=examples.first,
            candidates=np.concatenate([examples.second[:, None], negatives], axis=1),
            relevance=relevance,
            meaning="teacher" if examples.kind == "distilled" else "binary",
        )
    if examples.kind == "classified":
        assert examples.labels is not None
        if classes or not set(examples.classes) <= {"0", "1"}:
            labels = [[float(label)] for label in examples.labels]
            lists = lay_out(examples.texts, examples.first.tolist(), positives, labels, "class")
            return replace(lists, classes=examples.classes)
        values = np.array([float(name) for name in examples.classes])[examples.labels]
        return _grouped(examples, values, "binary")
    assert examples.scores is not None
    meaning: Meaning = "binary" if np.isin(examples.scores, (0, 1)).all() else "graded"
    return _grouped(examples, examples.scores, meaning)


def _grouped(examples: Examples, values: NDArray[Any], meaning: Meaning) -> RankedLists:
    """Lay the texts of equal queries side by side."""
    assert examples.second is not None
    candidates: dict[int, list[int]] = {}
    relevance: dict[int, list[float]] = {}
    for query, text, value in zip(
        examples.first.tolist(), examples.second.tolist(), values.tolist(), strict=True
    ):
        candidates.setdefault(query, []).append(text)
        relevance.setdefault(query, []).append(value)
    return lay_out(
        examples.texts, list(candidates), list(candidates.values()), list(relevance.values()), meaning
    )
