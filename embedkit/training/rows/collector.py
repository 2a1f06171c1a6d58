"""Rows one by one into columns: each value is read as its role asks, or refused with its place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import RecordError
from embedkit.training.rows.columns import NEEDS, Columns, Kind, Role
from embedkit.training.rows.examples import Examples
from embedkit.training.rows.field_documents import FieldCollector


class Collector:
    """Turns rows of one kind into `Examples`; with `fields` the second texts and the negatives are documents that have some of these."""

    def __init__(self, source: str, columns: Columns, kind: Kind, *, fields: Sequence[str] = ()) -> None:
        self._source, self._columns, self._kind = source, columns, kind
        self._documents = FieldCollector(fields, self._numbered) if fields else None
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
                case "second" if self._documents is not None:
                    values.append(self._documents.number(where, name, value))
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
        return self._numbered(value)

    def _numbered(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def _negatives(self, where: str, row: Mapping[str, Any]) -> list[int]:
        found: list[int] = []
        for name in self._columns.negatives:
            value = row.get(name)
            if value is None or value == "":
                continue  # a row may have fewer than others
            number = self._text if self._documents is None else self._documents.number
            for each in value if isinstance(value, list) else [value]:
                found.append(number(where, name, each))
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
        documents, described = self._documents, self._columns.describe(self._kind)
        if documents is not None:
            described += f", with {documents.described(self._source)}"
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
            documents=None if documents is None else documents.table(),
            fields=() if documents is None else documents.fields,
            described=described,
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
