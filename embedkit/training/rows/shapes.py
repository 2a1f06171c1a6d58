"""Shapes that training rows come in, brought to one text for each side of a pair.

{"query": …, "pos": [two texts], "neg": […]}                        a row for each positive
{"query": …, "positive_passages": [{"title": …, "text": …}], …}     texts with their titles, as Tevatron has them
{"set": [texts that mean the same]}                                 pairs of the first text and each other one
columns by number, of files without a header                        text; first, second; and a third of scores or negatives
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from embedkit.data.records import titled_text
from embedkit.errors import RecordError
from embedkit.training.rows.columns import Columns, Role

Row = Mapping[str, Any]  # Any: whatever JSON holds
SET = "set"
# Texts of pairs that people vote on: a `score` beside them counts votes more often than it measures likeness.
_ANSWERED = ({"question", "title"}, {"answer", "body"})
_SCALES = ((0, 1), (-1, 1), (0, 5))


def pairs_of_sets(rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    """Turn each row that is a set of texts into pairs; other rows stay as they are.

    Raises (while iterating):
        RecordError: a set is no list of at least two texts.
    """
    for where, row in rows:
        if set(row) != {SET}:
            yield where, row
            continue
        texts = row[SET]
        if not isinstance(texts, list) or len(texts) < 2:
            raise RecordError(
                f"{where}: {SET!r} is {texts!r:.80}; it must be a list of at least two texts that mean the same. Correct the row"
            )
        for text in texts[1:]:
            yield where, {"anchor": texts[0], "positive": text}


def one_positive_a_row(where: str, row: Row, columns: Columns, *, join: bool = True) -> Iterator[Row]:
    """Yield a row for each text that stands in the second column, with the titles of all texts put before them.

    Without `join` texts that are objects stay so.

    Raises (while iterating):
        RecordError: the second column is an empty list.
    """
    second = columns.named.get("second", "")
    lists = {
        name: [_text(entry) for entry in row[name]] if join else row[name]
        for name in (second, *columns.negatives)
        if isinstance(row.get(name), list)
    }
    if second not in lists:
        yield {**row, **lists} if lists else row
        return
    if not lists[second]:
        raise RecordError(
            f"{where}: {second!r} is an empty list; it must hold a text. Take the row out or fill it in"
        )
    for text in lists[second]:
        yield {**row, **lists, second: text}


def _text(entry: Any) -> Any:  # Any: whatever JSON holds
    """Return the text of a passage that is an object, its title before it; other values as they are."""
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        return entry
    title = entry.get("title")
    return titled_text(title, entry["text"]) if isinstance(title, str) else entry["text"]


def roles_by_place(row: Row, where: str) -> dict[Role, str]:
    """Give the columns of a file without a header their roles.

    Raises:
        RecordError: there are more than three.
    """
    if len(row) == 1:
        return {"text": "1"}
    if len(row) == 2:
        return {"first": "1", "second": "2"}
    if len(row) == 3:
        third: Role = "score" if _is_number(row["3"]) else "negatives"
        return {"first": "1", "second": "2", third: "3"}
    raise RecordError(
        f"{where}: {len(row)} columns without a header; say which is which, such as --column first=1 --column second=2"
    )


def _is_number(value: Any) -> bool:  # Any: whatever JSON holds
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def refuse_votes(source: str, columns: Columns, scores: Any) -> None:  # Any: (R,) numbers
    """Ask what a `score` is that looks like votes rather than a likeness: out of all usual scales, or whole beside an answer.

    Raises:
        RecordError: it does.
    """
    name, first, second = (columns.named[role] for role in ("score", "first", "second"))
    low, high = float(np.min(scores)), float(np.max(scores))
    in_scale = any(least <= low and high <= most for least, most in _SCALES)
    whole = bool((scores == np.round(scores)).all())
    answered = first in _ANSWERED[0] and second in _ANSWERED[1]
    if in_scale and not (whole and answered and (low, high) != (0, 1)):
        return
    what = "whole numbers " if whole else ""
    raise RecordError(
        f"{source}: {name!r} holds {what}from {low:g} to {high:g}; are these votes, or how alike {first!r} and {second!r} are "
        f"(usually 0 to 1, or 0 to 5)? To train on the pairs alone pass --column score=, to train on the scores --column score={name}"
    )
