"""From files or retrieval sets to training rows: the columns of the first row decide what kind they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from embedkit.data.beir import folder_and_split
from embedkit.data.records import ReadOptions
from embedkit.errors import RecordError
from embedkit.training.rows.collector import Collector
from embedkit.training.rows.columns import KINDS, Kind, Role, choose_kind, find_columns
from embedkit.training.rows.examples import Examples
from embedkit.training.rows.field_documents import documents_of_rows
from embedkit.training.rows.files import read_rows
from embedkit.training.rows.retrieval_set import read_retrieval_rows
from embedkit.training.rows.shapes import one_positive_a_row, pairs_of_sets, refuse_votes, roles_by_place


def read_examples(
    source: str,
    *,
    columns: Mapping[Role, str] | None = None,
    kinds: Sequence[Kind] = KINDS,
    purpose: str = "training",
    read: ReadOptions | None = None,
    fields: Sequence[str] = (),
) -> Examples:
    """Read the rows of a file, folder or glob (JSONL, JSON, CSV, TSV, Parquet, text), or of a retrieval set FOLDER[:SPLIT].

    The columns of the first row decide: the first of all kinds that they make and that is among `kinds` is taken. Of `read` the
    delimiter and the header count. See `embedkit.training.rows.shapes` for the shapes that rows may have. With `fields` the second
    texts are documents that have some of these; see `embedkit.training.rows.field_documents`.

    Raises:
        RecordError: a file or row cannot be read, a column is missing, a text is empty, a number is none or not finite,
            or all rows are of one class, or scores look like votes; the message names the place.
    """
    folder, split = folder_and_split(source)
    if (Path(folder) / "qrels").is_dir():
        return _check(read_retrieval_rows(Path(folder), split, kinds, purpose, fields=fields))
    read = read or ReadOptions()
    rows = pairs_of_sets(read_rows(source, read))
    first = next(rows, None)
    if first is None:
        raise RecordError(f"{source}: there is no row in it; name another file")
    where, row = first
    given = columns or {}
    if fields:
        given, gather = documents_of_rows(row, fields, given, where)
        first, rows = (where, gather(row)), ((place, gather(each)) for place, each in rows)
        row = first[1]
    elif not read.header and not given:
        given = roles_by_place(row, where)
    found = find_columns(list(row), given, where)
    kind = choose_kind(found, kinds, where, purpose)
    collector = Collector(source, found, kind, fields=fields)
    for where, row in chain([first], rows):
        for each in one_positive_a_row(where, row, found, join=not fields):
            collector.add(where, each)
    examples = _check(collector.examples())
    if kind == "scored" and "pairs" in kinds and "score" not in given:
        refuse_votes(source, found, examples.scores)
    return examples


def _check(examples: Examples) -> Examples:
    if not len(examples):
        raise RecordError(f"{examples.name}: there is no row in it; name another file")
    if examples.kind in ("classified", "labelled") and len(examples.classes) < 2:
        raise RecordError(
            f"{examples.name}: all {len(examples)} rows have the label {examples.classes[0]!r}; there is nothing to tell apart. "
            "Give rows of at least two labels"
        )
    if examples.scores is not None and len(examples) > 1 and np.ptp(examples.scores) == 0:
        raise RecordError(
            f"{examples.name}: all {len(examples)} scores are {examples.scores[0]:g}; there is nothing to order. Check the column"
        )
    return examples
