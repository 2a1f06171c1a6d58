"""`--where` as PostgreSQL's SQL over a pushed table, where it means exactly what it means in an index."""

from __future__ import annotations

from typing import Any

from embedkit.errors import FilterError
from indexes.search.fields import Field, Literal
from indexes.search.syntax import And, Compare, Contains, IsNull, Matches, Node, Not, Or
from indexes.storage.matching import glob_regex

Sql = tuple[str, list[Any]]  # Any: SQL's values


def to_sql(node: Node) -> Sql:
    """Return a condition as SQL, true or false and never NULL, with the values of its places.

    Raises:
        FilterError: it is a regular expression, of which PostgreSQL has another kind than Python.
    """
    if isinstance(node, And | Or):
        pieces = [to_sql(part) for part in node.parts]
        joined = (" AND " if isinstance(node, And) else " OR ").join(sql for sql, _ in pieces)
        return f"({joined})", [value for _, values in pieces for value in values]
    if isinstance(node, Not):
        sql, values = to_sql(node.part)
        return f"(NOT {sql})", values
    if isinstance(node, IsNull):
        return _is_null(node.field)
    if isinstance(node, Compare):
        return _compare(node.field, node.operator, node.literal)
    if isinstance(node, Contains):
        return _contains(node)
    return _matches(node)


def _json(field: Field) -> Sql:
    """Return the JSON value of a field; not by `#>`, whose steps may be numbers of a list."""
    return "metadata" + " -> %s" * len(field.path), list(field.path)


def _is_null(field: Field) -> Sql:
    if not field.is_metadata:
        return "false", []
    value, path = _json(field)
    return f"coalesce(jsonb_typeof({value}) = 'null', true)", path


def _guarded(field: Field, kind: str, test: str, values: list[Any]) -> Sql:
    """Test a field's value if it is of a kind; `test` has `$` for the value."""
    value, path = _json(field)
    unpacked = f"(({value}) #>> '{{}}')"
    test = test.replace("$", unpacked)
    return f"coalesce(CASE WHEN jsonb_typeof({value}) = '{kind}' THEN {test} END, false)", [
        *path,
        *path,
        *values,
    ]


def _compare(field: Field, operator: str, literal: Literal) -> Sql:
    if isinstance(literal, str):
        # As SQLite compares texts: by their bytes, and with LIKE the letters of ASCII in either case.
        test, value = f'$ COLLATE "C" {operator} %s', literal
        if operator == "LIKE":
            test = """lower($ COLLATE "C") LIKE lower(%s COLLATE "C") ESCAPE ''"""
        if not field.is_metadata:
            return f"({test.replace('$', _column(field))})", [value]
        return _guarded(field, "string", test, [value])
    if not field.is_metadata:
        return "false", []  # the document's own fields are text
    if isinstance(literal, bool):
        return _guarded(field, "boolean", f"$::boolean {operator} %s", [literal])
    return _guarded(field, "number", f"$::numeric {operator} %s::numeric", [repr(literal)])


def _column(field: Field) -> str:
    return {"doc_id": "doc_id", "title": "title", "text": "body", "source": "source"}[field.column]


def _contains(node: Contains) -> Sql:
    value, path = _json(node.field)
    equal, of_equal = _compare(node.field, "=", node.literal)
    literal = node.literal
    scalar = "to_jsonb(%s::text)"
    if isinstance(literal, bool):
        scalar = "to_jsonb(%s::boolean)"
    elif not isinstance(literal, str):
        scalar, literal = "to_jsonb(%s::numeric)", repr(literal)
    holds = f"jsonb_build_array({scalar}) <@ ({value})"
    sql = f"(CASE WHEN jsonb_typeof({value}) = 'array' THEN {holds} ELSE {equal} END)"
    return sql, [*path, literal, *path, *of_equal]


def _matches(node: Matches) -> Sql:
    if node.function == "text_matches":
        raise FilterError(
            f"--where: {node.field.name} matches {node.pattern!r}: PostgreSQL's regular expressions are not Python's. "
            "Use like or glob here, or search an index: embedkit index pull"
        )
    name = "$" if "/" in node.pattern else "regexp_replace($, '^.*/', '')"
    test, values = f"{name} ~ %s", [f"^(?:{glob_regex(node.pattern).pattern})$"]
    if not node.field.is_metadata:
        return f"({test.replace('$', _column(node.field))})", values
    return _guarded(node.field, "string", test, values)
