"""`--where` as LanceDB's SQL over a pushed table, where it means what it means in an index.

LanceDB gives a field of JSON as JSON text: its first sign tells its kind. A text is compared without its quotes and escapes.
"""

from __future__ import annotations

import json
import re

from embedkit.errors import FilterError
from indexes.search.fields import Field, Literal
from indexes.search.syntax import And, Compare, Contains, IsNull, Matches, Node, Not, Or
from indexes.storage.matching import glob_regex

_UPPER, _LOWER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
_ESCAPES = (('\\"', '"'), ("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r"))


def to_sql(node: Node) -> str:
    """Return a condition as SQL, true or false and never NULL.

    Raises:
        FilterError: LanceDB cannot say it.
    """
    if isinstance(node, And | Or):
        return f"({(' AND ' if isinstance(node, And) else ' OR ').join(map(to_sql, node.parts))})"
    if isinstance(node, Not):
        return f"(NOT {to_sql(node.part)})"
    if isinstance(node, IsNull):
        return _is_null(node.field)
    if isinstance(node, Compare):
        return _compare(node.field, node.operator, node.literal)
    return _contains(node) if isinstance(node, Contains) else _matches(node)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _path(field: Field) -> str:
    """Return the path of a field as JSON paths have it."""
    if any(sign in step for step in field.path for sign in '"\\'):
        raise FilterError(
            f"--where: LanceDB has no way to name the field {field.name!r}. Search an index: embedkit index pull"
        )
    return quoted("$" + "".join(f'."{step}"' for step in field.path))


def _json(field: Field) -> str:
    return f"json_extract(metadata, {_path(field)})"


def _is_null(field: Field) -> str:
    if not field.is_metadata:
        return "false"
    return f"({_json(field)} IS NULL OR {_json(field)} = 'null')"


def _text(field: Field) -> str:
    """Return the text that a field holds; of a field of another kind something without meaning."""
    if not field.is_metadata:
        return {"doc_id": "doc_id", "title": "title", "text": "body", "source": "source"}[field.column]
    value = _json(field)
    # A backslash that stands for itself is out of the way while the other escapes are read.
    text = f"replace(substr(left({value}, -1), 2), {quoted(2 * chr(92))}, chr(1))"
    for escape, sign in _ESCAPES:
        text = f"replace({text}, {quoted(escape)}, {quoted(sign)})"
    return f"replace({text}, chr(1), {quoted(chr(92))})"


def _if_text(field: Field, test: str) -> str:
    return test if not field.is_metadata else f"coalesce({_json(field)} LIKE '\"%' AND {test}, false)"


def _compare(field: Field, operator: str, literal: Literal) -> str:
    if isinstance(literal, str):
        if operator != "LIKE":
            return _if_text(field, f"({_text(field)} {operator} {quoted(literal)})")
        pattern = literal.translate(str.maketrans(_UPPER, _LOWER)).replace("\\", "\\\\")
        return _if_text(field, f"(translate({_text(field)}, '{_UPPER}', '{_LOWER}') LIKE {quoted(pattern)})")
    if not field.is_metadata:
        return "false"  # the document's own fields are text
    value = _json(field)
    if isinstance(literal, bool):
        return (
            f"coalesce({value} IN ('true', 'false') AND {value} {operator} '{str(literal).lower()}', false)"
        )
    return f"coalesce(try_cast({value} AS DOUBLE) {operator} CAST({float(literal)!r} AS DOUBLE), false)"


def _contains(node: Contains) -> str:
    """Look for an item: LanceDB's own function does not tell "1" from 1, the look of the list not its items from those of lists within."""
    value, path, literal = _json(node.field), _path(node.field), node.literal
    if isinstance(literal, str):
        spelt = json.dumps(literal, ensure_ascii=False)
        if spelt != f'"{literal}"':
            raise FilterError(
                f"--where: {node.field.name} contains {literal!r}: LanceDB finds no item with quotes, backslashes or control signs. "
                "Search an index: embedkit index pull"
            )
        holds = f"json_array_contains(metadata, {path}, {quoted(literal)}) AND strpos({value}, {quoted(spelt)}) > 0"
    else:
        whole = not isinstance(literal, bool) and float(literal).is_integer() and abs(literal) < 2**53
        # 1 and 1.0 are the same number.
        spellings = [str(int(literal)), str(float(literal))] if whole else [json.dumps(literal)]
        either = " OR ".join(f"json_array_contains(metadata, {path}, '{each}')" for each in spellings)
        pattern = "|".join(map(re.escape, spellings))
        holds = f"({either}) AND regexp_like({value}, '[\\[,]({pattern})[,\\]]')"
    return f"(coalesce({value} LIKE '[%' AND {holds}, false) OR {_compare(node.field, '=', literal)})"


def _matches(node: Matches) -> str:
    if node.function == "text_matches":
        raise FilterError(
            f"--where: {node.field.name} matches {node.pattern!r}: LanceDB's regular expressions are not Python's. "
            "Use like or glob here, or search an index: embedkit index pull"
        )
    text = _text(node.field)
    name = text if "/" in node.pattern else f"regexp_replace({text}, '(?s)^.*/', '')"
    return _if_text(
        node.field, f"regexp_like({name}, {quoted(f'(?s)^(?:{glob_regex(node.pattern).pattern})$')})"
    )
