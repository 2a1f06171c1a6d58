"""The fields that a filter names, as SQL over the table `documents`, and whether they are used as what they hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal as Choice

from ..storage.database import Database

Value = str | int | float
Literal = Value | bool
Sql = tuple[str, tuple[Value, ...]]  # with the values of its question marks

# SQLite refuses all of a query for one NaN, which earlier versions stored; `strict_json` reads it as null.
METADATA = "CASE WHEN json_valid(metadata) THEN metadata ELSE strict_json(metadata) END"
# JSON text escapes these signs, and before 3.44 a path of SQLite's finds no name with them.
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
# Documents among which lists are looked for before a comparison: some milliseconds.
_SAMPLE = 10_000


@dataclass(frozen=True)
class Field:
    """A column of the table, or the steps into the metadata; `name` is what the filter calls it."""

    name: str
    column: str = ""
    path: tuple[str, ...] = ()

    @property
    def is_metadata(self) -> bool:
        return not self.column

    def value(self) -> Sql:
        if self.column:
            return self.column, ()
        return self._get("json_extract", "value")

    def kind(self) -> Sql:
        """Return JSON's name for the kind of value; NULL where the field is not there."""
        return self._get("json_type", "type")

    def _get(self, function: str, column: str) -> Sql:
        if _ESCAPED.search("".join(self.path)):  # a quoted name, which is one step
            return f"(SELECT {column} FROM json_each({METADATA}) WHERE key = ?)", self.path
        steps = "".join(f'."{step}"' for step in self.path)
        return f"{function}({METADATA}, ?)", (f"${steps}",)

    def call(self, function: str, pattern: str) -> Sql:
        """Test a text by an SQL function of it and a pattern."""
        if self.column:
            return f"{function}({self.column}, ?)", (pattern,)
        kind, of_kind = self.kind()
        value, of_value = self.value()
        # Not AND: SQLite may compute its sides in any order, and the function takes texts alone.
        return f"(CASE WHEN {kind} IS 'text' THEN {function}({value}, ?) ELSE 0 END)", (
            *of_kind,
            *of_value,
            pattern,
        )

    def compare(self, operator: str, literal: Literal) -> Sql:
        if self.column:
            if isinstance(literal, str):
                return f"({self.column} {operator} ?)", (literal,)
            return "0", ()  # the document's own fields are text
        kind, of_kind = self.kind()
        value, of_value = self.value()
        # coalesce: where the field is missing the answer is no, not NULL, so that NOT makes it yes.
        sql = f"coalesce({kind} IN ({_kinds(literal)}) AND {value} {operator} ?, 0)"
        return sql, (*of_kind, *of_value, _bound(literal))

    def contains(self, literal: Literal) -> Sql:
        """Test whether a list holds the value; a field that is no list must be the value itself."""
        kind, of_kind = self.kind()
        items, of_items = self.value()  # of a list its JSON
        equal, of_equal = self.compare("=", literal)
        sql = (
            f"CASE {kind} WHEN 'array' THEN EXISTS (SELECT 1 FROM json_each({items}) AS item "
            f"WHERE item.type IN ({_kinds(literal)}) AND item.value = ?) ELSE {equal} END"
        )
        return sql, (*of_kind, *of_items, _bound(literal), *of_equal)


@dataclass(frozen=True)
class FieldUse:
    """A field, and whether the filter takes it for one value or for a list."""

    field: Field
    taken_for: Choice["value", "list"]


def misuse(database: Database, use: FieldUse, where: str) -> str:
    """Say what is wrong with a use that finds nothing for a reason that is not the data's, and what is right; "" where nothing is.

    Such are a list compared as a value, and a value searched as a list.
    """
    kind, values = use.field.kind()
    if use.taken_for == "list":
        sql = f"SELECT {kind} FROM documents WHERE {kind} = 'array' LIMIT 1"
    else:
        sample = f"(SELECT metadata FROM documents LIMIT {_SAMPLE})"
        sql = f"SELECT {kind} FROM {sample} WHERE {kind} IN ('array', 'object') LIMIT 1"
    found = database.execute(sql, (*values, *values)).fetchone()
    return misuse_of_kinds(use, () if found is None else found, where)


def misuse_of_kinds(use: FieldUse, kinds: Sequence[str], where: str) -> str:
    """As `misuse`, of a field whose values are of these kinds, by JSON's names for them."""
    name = use.field.name
    if use.taken_for == "list":
        if "array" in kinds:
            return ""
        return (
            f"--where {where!r}: {name!r} is no list in any document, and contains looks into lists. "
            f"Write it like: {name} = 'value' or {name} like '%word%'"
        )
    if "array" in kinds:
        return f"--where {where!r}: {name!r} is a list, which equals no single value. Write it like: {name} contains 'value'"
    if "object" in kinds:
        return (
            f"--where {where!r}: {name!r} is an object, which equals no single value. "
            f"Name a field in it, like: {name}.field = 'value'"
        )
    return ""


def field_kinds(database: Database) -> dict[str, list[str]]:
    """Return each field of the metadata with JSON's names for the kinds of value that it has: "text", "integer", "array" …"""
    kinds: dict[str, list[str]] = {}
    found = f"SELECT DISTINCT each.key, each.type FROM documents, json_each({METADATA}) AS each ORDER BY 1, 2"
    for name, kind in database.execute(found):
        kinds.setdefault(name, []).append(kind)
    return kinds


def _kinds(literal: Literal) -> str:
    if isinstance(literal, bool):
        return "'true', 'false'"
    return "'text'" if isinstance(literal, str) else "'integer', 'real'"


def _bound(literal: Literal) -> Value:
    return int(literal) if isinstance(literal, bool) else literal
