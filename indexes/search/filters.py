r"""`--where`: a small, safe language over metadata, compiled to SQL with bound parameters.

    lang = 'en' and year > 2020
    (topic in ('law', 'tax') or title like 'Budget%') and not archived = true
    author.name is not null

    tags contains 'pets' and 'home' not in tags
    id glob 'src/**/*.py' and text matches 'def \w+_hash'

A comparison holds only where the field is there and is of the literal's kind (text, number, true/false), so that 'not'
is the opposite and a year written as text is never larger than every number, as plain SQLite would have it.
`id`, `title`, `text` and `source` are the document's own; every other name is metadata, dots reach into objects, and
double quotes hold names with other signs: "my field" = 1, and a double quote as two: "5"" disk" = true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedkit.errors import FilterError

from .fields import FieldUse, Sql, Value
from .syntax import And, Compare, Contains, IsNull, Node, Not, Or, parse_filter, uses_of

# SQLite takes 32,766 question marks in one statement (https://www.sqlite.org/limits.html), of which a search needs a few.
MAX_VALUES = 32_000


@dataclass(frozen=True)
class Filter:
    """A condition over the table `documents`, the values of its question marks, and how it uses metadata fields."""

    sql: str
    values: Sequence[Value]
    uses: Sequence[FieldUse] = ()


def compile_filter(text: str, field_names: Sequence[str], *, allow_regex: bool = True) -> Filter:
    """Compile a where expression; `field_names` are the metadata fields that the index knows.

    Raises:
        FilterError: as `parse_filter`, or it holds more values than SQLite takes.
    """
    tree = parse_filter(text, field_names, allow_regex=allow_regex)
    sql, values = _sql(tree)
    if len(values) > MAX_VALUES:
        raise FilterError(
            f"--where {text[:60]!r} …: the filter has {len(values):,} values, those that name fields among them; it may have "
            f"{MAX_VALUES:,}. Ask in parts"
        )
    return Filter(sql, values, tuple(dict.fromkeys(uses_of(tree))))


def _sql(node: Node) -> Sql:
    if isinstance(node, And | Or):
        pieces = [_sql(part) for part in node.parts]
        joined = _joined([sql for sql, _ in pieces], "AND" if isinstance(node, And) else "OR")
        return joined, tuple(value for _, values in pieces for value in values)
    if isinstance(node, Not):
        sql, values = _sql(node.part)
        return f"(NOT {sql})", values
    if isinstance(node, IsNull):
        sql, values = node.field.value()
        return f"({sql} IS NULL)", values
    if isinstance(node, Compare):
        return node.field.compare(node.operator, node.literal)
    if isinstance(node, Contains):
        return node.field.contains(node.literal)
    return node.field.call(node.function, node.pattern)


def _joined(pieces: Sequence[str], operator: str) -> str:
    """Join conditions half by half: in a row, each would be a level more of SQLite's tree, which may have 1,000."""
    if len(pieces) == 1:
        return pieces[0]
    half = len(pieces) // 2
    return f"({_joined(pieces[:half], operator)} {operator} {_joined(pieces[half:], operator)})"
