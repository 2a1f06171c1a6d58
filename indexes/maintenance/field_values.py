"""What the metadata of an index hold: for each field its kind, its commonest values, its least and largest: what filters are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..search.fields import METADATA
from ..storage.database import Database
from ..storage.faults import reading

FieldKind = Literal["number", "text", "flag", "list"]
MOST_VALUES = 20
MOST_CHARS = 80  # longer texts are no choice of a list
# Documents from all parts of the index whose values are counted; least and largest are of all.
COUNTED = 20_000
_KINDS: dict[str, FieldKind] = {
    "integer": "number",
    "real": "number",
    "text": "text",
    "true": "flag",
    "false": "flag",
    "array": "list",
}


@dataclass(frozen=True, kw_only=True)
class FieldValues:
    """One field of the metadata.

    `kind` is what most documents hold there. `values` are the commonest, most frequent first, of a list what it holds; `least` and
    `largest` are those of numbers and texts, and None for others.
    """

    name: str
    kind: FieldKind
    values: Sequence[str | int | float | bool] = ()
    least: str | int | float | None = None
    largest: str | int | float | None = None


class HasDatabase(Protocol):
    """An `Index`, which has a method for this and so is not named here."""

    database: Database


def field_values(index: HasDatabase) -> list[FieldValues]:
    """Look through the metadata of an index, one pass for each thing asked; fields of objects are left out.

    Raises:
        IndexFileError: the database is damaged.
    """
    database = index.database
    with reading(database.path):
        extremes: dict[str, dict[FieldKind, tuple[int, Any, Any]]] = {}  # Any: SQLite's values
        rows = database.execute(
            "SELECT field.key, field.type, count(*), min(field.atom), max(field.atom) "
            f"FROM documents, json_each({METADATA}) AS field GROUP BY field.key, field.type"
        )
        for name, type_, count, least, largest in rows:
            if type_ not in _KINDS:
                continue
            kind = _KINDS[type_]
            known = extremes.setdefault(name, {}).get(kind)
            if known is not None:  # integers and reals
                count, least, largest = count + known[0], min(least, known[1]), max(largest, known[2])
            extremes[name][kind] = (count, least, largest)
        common = _common(database)
    found = []
    for name, kinds in sorted(extremes.items()):
        kind = max(kinds, key=lambda each: kinds[each][0])
        _, least, largest = kinds[kind]
        bounded = kind in ("number", "text")
        found.append(
            FieldValues(
                name=name,
                kind=kind,
                values=[value for value, _ in common.get((name, kind), Counter()).most_common(MOST_VALUES)],
                least=least if bounded else None,
                largest=largest if bounded else None,
            )
        )
    return found


def _common(database: Database) -> dict[tuple[str, FieldKind], Counter[Any]]:  # Any: values of metadata
    step = max(1, database.count("documents") // COUNTED)
    sampled = "SELECT metadata FROM documents WHERE doc_key % ? = 0"
    of_fields = f"SELECT field.key, field.type, field.type, field.atom FROM ({sampled}), json_each({METADATA}) AS field"
    of_lists = (
        "SELECT field.key, 'array', item.type, item.atom "
        f"FROM ({sampled}), json_each({METADATA}) AS field, json_each(field.value) AS item "
        "WHERE field.type = 'array'"
    )
    counts: dict[tuple[str, FieldKind], Counter[Any]] = {}
    for statement in (of_fields, of_lists):
        for name, outer, inner, value in database.execute(statement, (step,)):
            if outer not in _KINDS or inner not in _KINDS or inner == "array":
                continue
            if isinstance(value, str) and len(value) > MOST_CHARS:
                continue
            value = bool(value) if inner in ("true", "false") else value
            counts.setdefault((name, _KINDS[outer]), Counter())[value] += 1
    return counts


def merge_fields(parts: Sequence[Sequence[FieldValues]]) -> list[FieldValues]:
    """Return what shards hold together: the kind that most of them have, and the values that stand first in most."""
    names = sorted({each.name for part in parts for each in part})
    return [_merged([each for part in parts for each in part if each.name == name]) for name in names]


def _merged(found: Sequence[FieldValues]) -> FieldValues:
    kind = Counter(each.kind for each in found).most_common(1)[0][0]
    alike = [each for each in found if each.kind == kind]
    # A value counts by its rank: how often each occurs is not told.
    points: Counter[Any] = Counter()
    for each in alike:
        for rank, value in enumerate(each.values):
            points[value] += MOST_VALUES - rank
    least = [each.least for each in alike if each.least is not None]
    largest = [each.largest for each in alike if each.largest is not None]
    return FieldValues(
        name=found[0].name,
        kind=kind,
        values=[value for value, _ in points.most_common(MOST_VALUES)],
        least=min(least) if least else None,
        largest=max(largest) if largest else None,
    )
