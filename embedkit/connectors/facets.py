"""`--where` for stores that match whole values and numbers, and nothing else: what a row has to say to it, and what a condition asks of that.

A row carries tokens (hashes of "topic is 3", "topic is a number", "tags holds 'x'") and numbers. The order of a text is that of the numbers which
its bytes make, six bytes a number. Whatever else a condition asks (LIKE, patterns) is refused.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedkit.connectors.store import StoreRow
from embedkit.errors import FilterError
from indexes.search.fields import Field, Literal
from indexes.search.syntax import And, Compare, Contains, IsNull, Matches, Node, Not, Or
from indexes.storage.metadata import read_metadata

_STEP = 6  # bytes of a text in one number: 257^6 < 2^53, so that it is exact as float64
_STEPS = 5
_KINDS = ("text", "number", "boolean", "list", "object")
_OPPOSITE = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "=": "!=", "!=": "="}


@dataclass(frozen=True)
class Facets:
    """What can be asked of a row: the tokens that it has, and the numbers, by key."""

    tokens: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Has:
    """Whether a row has a token; with `wanted` false, whether it has it not."""

    token: str
    wanted: bool = True


@dataclass(frozen=True)
class Within:
    """Whether a row has a number, and it stands so to another."""

    key: str
    operator: str  # = < <= > >=
    number: float


@dataclass(frozen=True)
class All:
    parts: Sequence[Condition]


@dataclass(frozen=True)
class Some:
    parts: Sequence[Condition]


Condition = Has | Within | All | Some


def facets_of(row: StoreRow) -> Facets:
    """Return what can be asked of a row."""
    facets = Facets()
    columns = {"doc_id": row.key.doc_id, "title": row.title, "text": row.text, "source": row.source}
    for column, text in columns.items():
        facets.tokens.append(_token("is", Field(column, column), text))
    for column in ("doc_id", "source"):
        facets.numbers.update(_order(Field(column, column), columns[column]))
    for name, value in read_metadata(row.metadata).items():
        _add(facets, (name,), value)
    facets.tokens[:] = dict.fromkeys(facets.tokens)
    return facets


def _add(facets: Facets, path: tuple[str, ...], value: Any) -> None:  # Any: whatever JSON holds
    if value is None:
        return
    at = Field(".".join(path), path=path)
    kind = _kind(value)
    facets.tokens.append(_token("kind", at, kind))
    if kind == "object":
        for name, inner in value.items():
            _add(facets, (*path, name), inner)
    elif kind == "list":
        for item in value:
            if item is not None and _kind(item) not in ("list", "object"):
                facets.tokens.append(_token("holds", at, item))
    else:
        facets.tokens.append(_token("is", at, value))
        if kind == "number":
            facets.numbers[_token("number", at, "")] = _finite(value)
        elif kind == "text":
            facets.numbers.update(_order(at, value))


def _kind(value: Any) -> str:  # Any: as above
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "number"
    return "list" if isinstance(value, list) else "object"


def _finite(number: int | float) -> float:
    """Return the nearest number that JSON has: SQLite's are floats, too, where they are no integers of 64 bits."""
    most = sys.float_info.max
    return float(max(-most, min(most, number)))


def _token(relation: str, at: Field, value: Literal) -> str:
    """Return a hash of a statement; 1 and 1.0 are the same number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = _finite(value) if not -(2**63) <= value < 2**63 else value
        value = int(value) if isinstance(value, float) and value.is_integer() else value
    statement = json.dumps([relation, at.column, *at.path, value])
    return hashlib.blake2b(statement.encode(), digest_size=16).hexdigest()


def _order(at: Field, text: str) -> Iterator[tuple[str, float]]:
    """Yield the numbers that order texts by their bytes, as many as the text fills; a 0 ends it."""
    for step, number in enumerate(_digits(text)):
        yield _token(f"order {step}", at, ""), number
        if number % 257 == 0:
            return


def _digits(text: str) -> list[float]:
    data = text.encode()[: _STEP * _STEPS].ljust(_STEP * _STEPS + 1, b"\0")
    length = len(text.encode())
    digits = [data[place] + 1 if place < length else 0 for place in range(_STEP * _STEPS)]
    numbers = []
    for start in range(0, len(digits), _STEP):
        number = 0
        for digit in digits[start : start + _STEP]:
            number = number * 257 + digit
        numbers.append(float(number))
    return numbers


def condition_of(node: Node, store: str) -> Condition:
    """Return what a filter asks of facets; `store` is named in messages.

    Raises:
        FilterError: it asks what facets do not tell.
    """
    return _Reading(store).read(node, wanted=True)


NEVER = Has("never")


@dataclass(frozen=True)
class _Reading:
    store: str

    def read(self, node: Node, *, wanted: bool) -> Condition:
        """Return a condition, or its opposite: `not` stands before single tokens alone, which all stores can say."""
        if isinstance(node, Not):
            return self.read(node.part, wanted=not wanted)
        if isinstance(node, And | Or):
            parts = [self.read(part, wanted=wanted) for part in node.parts]
            return All(parts) if isinstance(node, And) == wanted else Some(parts)
        if isinstance(node, IsNull):
            kinds = [Has(_token("kind", node.field, kind), not wanted) for kind in _KINDS]
            if not node.field.is_metadata:
                return NEVER if wanted else All([])
            return All(kinds) if wanted else Some(kinds)
        if isinstance(node, Contains):
            either = [_token(relation, node.field, node.literal) for relation in ("is", "holds")]
            found = [Has(token, wanted) for token in either]
            return Some(found) if wanted else All(found)
        if isinstance(node, Matches) or node.operator == "LIKE":
            raise self._refused(node, "finds whole values alone, no patterns. Use = or in, or")
        return self._compare(node.field, node.operator, node.literal, wanted=wanted)

    def _compare(self, at: Field, operator: str, literal: Literal, *, wanted: bool) -> Condition:
        kind = _kind(literal)
        if not at.is_metadata and kind != "text":
            return NEVER if wanted else All([])  # the document's own fields are text
        if not wanted:
            if operator == "=":
                return Has(_token("is", at, literal), False)
            return Some([self._other_kind(at, kind), self._holds(at, _OPPOSITE[operator], literal)])
        return self._holds(at, operator, literal)

    def _other_kind(self, at: Field, kind: str) -> Condition:
        return Has(_token("kind", at, kind), False) if at.is_metadata else NEVER

    def _holds(self, at: Field, operator: str, literal: Literal) -> Condition:
        """Say that a field of the literal's kind stands so to it."""
        same = _token("is", at, literal)
        if operator == "=":
            return Has(same)
        if operator == "!=":
            of_kind = [Has(_token("kind", at, _kind(literal)))] if at.is_metadata else []
            return All([*of_kind, Has(same, False)])
        if isinstance(literal, bool):
            passing = [value for value in (False, True) if _COMPARE[operator](value, literal)]
            return Some([Has(_token("is", at, value)) for value in passing]) if passing else NEVER
        if isinstance(literal, str):
            return self._text_order(at, operator, literal)
        if 2**53 <= abs(literal) <= 2**63:
            raise self._refused(
                Compare(at, "=", literal),
                "compares numbers as float64, which is not exact there. Use = or in, or",
            )
        return Within(_token("number", at, ""), operator, _finite(literal))

    def _text_order(self, at: Field, operator: str, literal: str) -> Condition:
        """Compare number by number: a later one decides where those before are the same."""
        node = Compare(at, "=", literal)
        if not at.is_metadata and at.column not in ("doc_id", "source"):
            raise self._refused(node, f"does not order documents by their {at.name}. Use = or in, or")
        if len(literal.encode()) >= _STEP * _STEPS:
            raise self._refused(
                node, f"orders texts by their first {_STEP * _STEPS - 1} bytes. Write a shorter one, or"
            )
        numbers = list(_order(at, literal))
        key, number = numbers[-1]
        found: Condition = Within(key, operator, number)
        for key, number in reversed(numbers[:-1]):
            found = Some([Within(key, operator[0], number), All([Within(key, "=", number), found])])
        return found

    def _refused(self, node: Compare | Matches, why: str) -> FilterError:
        literal = node.pattern if isinstance(node, Matches) else node.literal
        return FilterError(
            f"--where: {node.field.name} against {literal!r}: {self.store} {why} search an index: embedkit index pull"
        )


_COMPARE: Mapping[str, Any] = {  # Any: comparisons of two truths
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
