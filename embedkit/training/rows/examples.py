"""Training rows of any kind, read from files into columns: every distinct text once, rows as numbers of texts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.data.beir import load_retrieval_set
from embedkit.data.formats import (
    format_of,
    named_rows,
    open_compressed,
    read_lines,
    read_whole,
)
from embedkit.data.paths import expand_inputs
from embedkit.data.reading import read_documents
from embedkit.data.records import ReadOptions, titled_text
from embedkit.errors import RecordError
from embedkit.training.rows.columns import KINDS, NEEDS, Columns, Kind, Role, choose_kind, find_columns
from embedkit.training.rows.shapes import one_positive_a_row, pairs_of_sets, refuse_votes, roles_by_place

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
MAX_LINE_BYTES = ReadOptions.max_line_bytes


@dataclass(frozen=True, kw_only=True)
class Examples:
    """R rows of one kind over U distinct texts.

    Shapes:
        first, second: (R,) numbers of texts; `first` is the text itself where there is one a row
        negatives: (R, K) numbers of texts, -1 where a row has fewer than others; K is 0 without negatives
        scores: (R,), as in the file
        labels: (R,) numbers of `classes`, which are in the order of their names
        vectors: (R, E)
        margins: (R, K) the teacher's score of the positive minus that of each negative, NaN where there is none
    """

    name: str
    kind: Kind
    texts: Sequence[str]
    first: Ints
    second: Ints | None = None
    negatives: Ints | None = None
    scores: Floats | None = None
    labels: Ints | None = None
    classes: tuple[str, ...] = ()
    vectors: Floats | None = None
    margins: Floats | None = None
    described: str = ""

    def __len__(self) -> int:
        return len(self.first)

    @property
    def short_name(self) -> str:
        """The last two parts of the name, without endings: stsb/train."""
        return "/".join(part.partition(".")[0] or part for part in Path(self.name).parts[-2:])

    @property
    def text_columns(self) -> Ints:
        """All texts of each row, (R, 1, 2 or 2 + K); -1 where there is none."""
        columns = [self.first[:, None]]
        if self.second is not None:
            columns.append(self.second[:, None])
        if self.negatives is not None:
            columns.append(self.negatives)
        return np.concatenate(columns, axis=1)

    def take(self, rows: Ints) -> Examples:
        """Return some of the rows, over the same texts."""

        def some(array: NDArray[Any] | None) -> NDArray[Any] | None:  # Any: numbers of either kind
            return None if array is None else array[rows]

        return replace(
            self,
            first=self.first[rows],
            second=some(self.second),
            negatives=some(self.negatives),
            scores=some(self.scores),
            labels=some(self.labels),
            vectors=some(self.vectors),
            margins=some(self.margins),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything in the rows."""
        digest = hashlib.sha256(self.kind.encode())
        for text in (*self.texts, *self.classes):
            digest.update(text.encode("utf-8") + b"\0")
        for array in (self.text_columns, self.scores, self.labels, self.vectors, self.margins):
            digest.update(b"|" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def read_examples(
    source: str,
    *,
    columns: Mapping[Role, str] | None = None,
    kinds: Sequence[Kind] = KINDS,
    purpose: str = "training",
    read: ReadOptions | None = None,
) -> Examples:
    """Read the rows of a file, folder or glob (JSONL, JSON, CSV, TSV, Parquet, text), or of a retrieval set FOLDER[:SPLIT].

    The columns of the first row decide: the first of all kinds that they make and that is among `kinds` is taken. Of `read` the
    delimiter and the header count. See `embedkit.training.rows.shapes` for the shapes that rows may have.

    Raises:
        RecordError: a file or row cannot be read, a column is missing, a text is empty, a number is none or not finite,
            or all rows are of one class, or scores look like votes; the message names the place.
    """
    folder, _, split = source.partition(":") if not Path(source).exists() else (source, "", "")
    if (Path(folder) / "qrels").is_dir():
        return _check(_read_retrieval_set(Path(folder), split, kinds, purpose))
    read = read or ReadOptions()
    rows = pairs_of_sets(_read_rows(source, read))
    first = next(rows, None)
    if first is None:
        raise RecordError(f"{source}: there is no row in it; name another file")
    where, row = first
    given = columns or {}
    if not read.header and not given:
        given = roles_by_place(row, where)
    found = find_columns(list(row), given, where)
    kind = choose_kind(found, kinds, where, purpose)
    collector = _Collector(source, found, kind)
    for where, row in chain([first], rows):
        for each in one_positive_a_row(where, row, found):
            collector.add(where, each)
    examples = _check(collector.examples())
    if kind == "scored" and "pairs" in kinds and "score" not in given:
        refuse_votes(source, found, examples.scores)
    return examples


def _read_rows(
    source: str, read: ReadOptions
) -> Iterator[tuple[str, Mapping[str, Any]]]:  # Any: whatever JSON holds
    for path in expand_inputs([source]):
        name = path.as_posix()
        with path.open("rb") as file:
            stream, form = open_compressed(file, name), format_of(path)
            match form:
                case "jsonl" | "json" | "csv" | "tsv" | "parquet":
                    rows = named_rows(
                        stream,
                        name,
                        form,
                        max_line_bytes=MAX_LINE_BYTES,
                        delimiter=read.delimiter,
                        header=read.header,
                    )
                case "txt":
                    lines = read_lines(stream, name, MAX_LINE_BYTES)
                    rows = ((number, {"text": line}) for number, line in lines if line.strip())
                case _:
                    rows = iter([(1, {"text": read_whole(stream, name, MAX_LINE_BYTES)})])
            for number, row in rows:
                yield f"{name}:{number}", row


class _Collector:
    """Turns rows into columns."""

    def __init__(self, source: str, columns: Columns, kind: Kind) -> None:
        self._source, self._columns, self._kind = source, columns, kind
        self._numbers: dict[str, int] = {}
        self._values: dict[Role, list[Any]] = {
            role: [] for role in NEEDS[kind]
        }  # Any: numbers, lists of them

    def add(self, where: str, row: Mapping[str, Any]) -> None:
        for role, values in self._values.items():
            if role == "negatives":
                values.append(self._negatives(where, row))
                continue
            name = self._columns.named[role]
            if name not in row:
                raise RecordError(
                    f"{where}: missing column {name!r} ({role}); columns here: {', '.join(row) or 'none'}. "
                    "Every row must have what the first has"
                )
            value = row[name]
            match role:
                case "first" | "second" | "text":
                    values.append(self._text(where, name, value))
                case "score":
                    values.append(_number(where, name, value))
                case "label":
                    values.append(_label(where, name, value))
                case _:  # vector, margins
                    values.append(_numbers(where, name, value))
        self._check_margins(where)

    def _text(self, where: str, name: str, value: Any) -> int:  # Any: whatever JSON holds
        if not isinstance(value, str) or not value.strip():
            what = f"{type(value).__name__} {value!r}" if not isinstance(value, str) else "empty"
            raise RecordError(
                f"{where}: {name!r} is {what}; it must be a text. Take the row out or fill it in"
            )
        return self._numbers.setdefault(value, len(self._numbers))

    def _negatives(self, where: str, row: Mapping[str, Any]) -> list[int]:
        found: list[int] = []
        for name in self._columns.negatives:
            value = row.get(name)
            if value is None or value == "":
                continue  # a row may have fewer than others
            for text in value if isinstance(value, list) else [value]:
                found.append(self._text(where, name, text))
        return found

    def _check_margins(self, where: str) -> None:
        if "margins" not in self._values:
            return
        negatives, margins = self._values["negatives"][-1], self._values["margins"][-1]
        if len(negatives) != len(margins):
            raise RecordError(
                f"{where}: {len(negatives)} negatives and {len(margins)} margins; each negative needs one"
            )

    def examples(self) -> Examples:
        values = self._values
        labels = None
        classes: tuple[str, ...] = ()
        if "label" in values:
            names, labels = np.unique(np.array(values["label"], dtype=np.str_), return_inverse=True)
            classes = tuple(str(name) for name in names)
        if "vector" in values:
            _check_widths(self._source, values["vector"])
        return Examples(
            name=self._source,
            kind=self._kind,
            texts=list(self._numbers),
            first=np.array(values["first" if "first" in values else "text"], dtype=np.int64),
            second=np.array(values["second"], dtype=np.int64) if "second" in values else None,
            negatives=_ragged(values["negatives"], -1).astype(np.int64) if "negatives" in values else None,
            scores=np.array(values["score"], dtype=np.float32) if "score" in values else None,
            labels=None if labels is None else labels.astype(np.int64),
            classes=classes,
            vectors=np.array(values["vector"], dtype=np.float32) if "vector" in values else None,
            margins=_ragged(values["margins"], math.nan).astype(np.float32) if "margins" in values else None,
            described=self._columns.describe(self._kind),
        )


def _ragged(rows: Sequence[Sequence[float]], filling: float) -> NDArray[np.float64]:
    """Lay lists of different lengths side by side: (R, longest)."""
    table = np.full((len(rows), max(map(len, rows), default=0)), filling)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table


def _number(where: str, name: str, value: Any) -> float:  # Any: whatever JSON holds
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RecordError(f"{where}: {name!r} is {value!r}; it must be a finite number. Correct the row")
    return number


def _numbers(where: str, name: str, value: Any) -> list[float]:  # Any: whatever JSON holds
    if isinstance(value, str):  # in CSV and TSV: numbers with spaces between
        value = value.strip("[]").replace(",", " ").split()
    return [_number(where, name, each) for each in (value if isinstance(value, list) else [value])]


def _label(where: str, name: str, value: Any) -> str:  # Any: whatever JSON holds
    if not isinstance(value, str | int | float) or value == "":
        raise RecordError(f"{where}: {name!r} is {value!r}; it must be a word or a number. Correct the row")
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole or isinstance(value, bool) else str(value)


def _check_widths(source: str, vectors: Sequence[Sequence[float]]) -> None:
    widths = sorted({len(vector) for vector in vectors})
    if len(widths) > 1:
        raise RecordError(
            f"{source}: vectors of {widths[0]} and of {widths[-1]} dimensions; all must be as long. "
            "Make them again with one model"
        )


def _read_retrieval_set(folder: Path, split: str, kinds: Sequence[Kind], purpose: str) -> Examples:
    """Make a row of each query and each document judged above 0; those judged 0 become negatives of the query."""
    found = load_retrieval_set(folder, split=split or _only_split(folder))
    wanted = {doc_id for judgements in found.qrels.values() for doc_id in judgements}
    documents = {
        document.doc_id: titled_text(document.title, document.text)
        for document in read_documents([str(found.corpus)])
        if document.doc_id in wanted
    }
    missing = sorted(wanted - set(documents))
    if missing:
        raise RecordError(
            f"{found.corpus}: {len(missing)} judged documents are not in it, such as {missing[0]!r}. "
            "Take corpus and judgements of one release"
        )
    columns = Columns({"first": "query", "second": "document"}, ("judged 0",), ("query", "document"))
    has_negatives = any(level <= 0 for judged in found.qrels.values() for level in judged.values())
    if not has_negatives:
        columns = replace(columns, negatives=())
    collector = _Collector(str(folder), columns, choose_kind(columns, kinds, str(folder), purpose))
    for query_id, text in found.queries.items():
        judged = found.qrels[query_id]
        negatives = [documents[doc_id] for doc_id, level in judged.items() if level <= 0]
        for doc_id, level in judged.items():
            if level > 0:
                row = {"query": text, "document": documents[doc_id], "judged 0": negatives}
                collector.add(f"{folder}: query {query_id!r}", row)
    return collector.examples()


def _only_split(folder: Path) -> str:
    splits = sorted({path.name.partition(".")[0] for path in (folder / "qrels").iterdir()})
    if "train" in splits or len(splits) == 1:
        return "train" if "train" in splits else splits[0]
    raise RecordError(
        f"{folder}: qrels/ holds {', '.join(splits) or 'nothing'}; which one to train on? Name it: {folder}:{splits[0] if splits else 'train'}"
    )


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
