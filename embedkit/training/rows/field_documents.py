"""Training rows whose second texts are documents with fields.

{"query": …, "positive": {"title": …, "text": …}, "negatives": [{"text": …}]}     objects of fields
{"query": …, "title": …, "text": …}                                               a column for each field, as in CSV
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.data.fields import FieldTexts, field_texts, refuse_unknown
from embedkit.errors import RecordError
from embedkit.training.rows.columns import USUAL_NAMES, Role

Row = Mapping[str, Any]  # Any: whatever JSON holds
Given = Mapping[Role, str]


def documents_of_rows(
    row: Row, fields: Sequence[str], given: Given, where: str
) -> tuple[Given, Callable[[Row], Row]]:
    """Say by the first row where the documents are: the roles of its columns, and what brings a row to one object a document.

    Where a field is a column, the columns of that kind are the document; else the second column holds objects.

    Raises:
        RecordError: both look like documents.
    """
    if "second" in given or not any(name in row for name in fields):
        return given, lambda each: each
    nested = [
        name for name in USUAL_NAMES["second"] if isinstance(row.get(name), dict) and name not in fields
    ]
    if nested:
        raise RecordError(
            f"{where}: {nested[0]!r} holds an object, and there are columns for fields too. Say which is the document: "
            f"--column second={nested[0]}, or rename the columns"
        )
    name = " + ".join(fields)

    def gather(each: Row) -> Row:
        document = {field: each[field] for field in fields if field in each}
        return {column: value for column, value in each.items() if column not in fields} | {name: document}

    return {**given, "second": name}, gather


class FieldCollector:
    """Numbers documents with fields, each distinct one once, and their texts by `number_text`."""

    def __init__(self, fields: Sequence[str], number_text: Callable[[str], int]) -> None:
        self.fields = tuple(fields)
        self._number_text = number_text
        self._numbers: dict[tuple[int, ...], int] = {}

    def number(self, where: str, name: str, value: Any) -> int:  # Any: whatever JSON holds
        """Return the number of a document, as a row has it in column `name`.

        Raises:
            RecordError: it is no object, has an unknown field or none at all, or a field is no text.
        """
        if isinstance(value, dict):
            refuse_unknown(value, self.fields, where)
            value = field_texts(value, self.fields, where)
        if not isinstance(value, tuple):
            raise RecordError(
                f"{where}: {name!r} is {value!r:.80}; it must be an object of the fields {', '.join(self.fields)}. Correct the row"
            )
        texts: FieldTexts = value
        numbers = tuple(-1 if text is None else self._number_text(text) for text in texts)
        return self._numbers.setdefault(numbers, len(self._numbers))

    def table(self) -> NDArray[np.int64]:
        """Return the texts' numbers, (M, F), -1 for a missing field."""
        return np.array(list(self._numbers), dtype=np.int64).reshape(-1, len(self.fields))

    def described(self, source: str) -> str:
        """Say how many of the documents have each field.

        Raises:
            RecordError: no document has one of them.
        """
        present = (self.table() >= 0).sum(axis=0).tolist()
        counts = dict(zip(self.fields, present, strict=True))
        absent = [name for name, count in counts.items() if not count]
        if absent and self._numbers:
            raise RecordError(
                f"{source}: no document has a field {absent[0]!r}; an expert for it would learn nothing. Leave it out of the fields"
            )
        parts = ", ".join(f"{name} in {count:,}" for name, count in counts.items())
        plural = "" if len(self._numbers) == 1 else "s"
        return f"{len(self._numbers):,} document{plural}: {parts}"
