"""How an unfinished filter may go on where a field stands next: what a shell offers after --where."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ..storage.database import Database
from ..storage.layout import database_path
from .syntax import COLUMNS, TOKEN, WORDS

_BEFORE_A_FIELD = ("and", "or", "(")
_NAMES, _LITERALS = ("name", "quoted"), ("string", "number")


def complete_filter(index: Path, text: str) -> list[str]:
    """Return the filters that `text` may become with one more field of an index.

    Raises:
        IndexFileError: the index cannot be read.
    """
    with closing(Database(database_path(index))) as database:
        return with_fields(text, database.field_names())


def with_fields(text: str, field_names: Sequence[str]) -> list[str]:
    """Return `text` with each field that fits its end, or nothing where no field stands next.

    >>> with_fields("year > 2020 and la", ["year", "lang"])
    ['year > 2020 and lang']
    """
    tokens, rest = [], 0
    while found := TOKEN.match(text, rest):
        assert found.lastgroup is not None  # every branch has a name
        tokens.append((found.lastgroup, found[found.lastgroup]))
        rest = found.end()
    begun = text[rest:].lstrip()
    if not begun and tokens and tokens[-1][0] in _NAMES and text.endswith(tokens[-1][1]):
        begun = tokens.pop()[1]  # nothing says that it is at its end
    if begun and not begun[0].isalpha() and begun[0] not in '_"':
        return []  # within a text
    if not _field_is_next(tokens):
        return []
    head = text[: len(text) - len(begun)]
    names = dict.fromkeys([*field_names, *COLUMNS])
    return [head + _spelt(name) for name in names if name.startswith(begun) or _spelt(name).startswith(begun)]


def _field_is_next(tokens: Sequence[tuple[str, str]]) -> bool:
    if not tokens:
        return True
    *before, (_, word) = tokens
    kind, earlier = before[-1] if before else ("", "")
    match word.lower():
        case "in":  # 'x' in tags, 'x' not in tags; and not: lang in (…)
            if earlier.lower() == "not" and len(before) > 1:
                kind = before[-2][0]
            return kind in _LITERALS
        case "not":  # not lang = …, and not: lang not like …
            return kind not in _NAMES or earlier.lower() in WORDS
        case other:
            return other in _BEFORE_A_FIELD


def _spelt(name: str) -> str:
    """Write a field as a filter names it: in double quotes where it is no plain name."""
    found = TOKEN.fullmatch(name)
    if found is not None and found.lastgroup == "name" and name.lower() not in WORDS:
        return name
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
