"""Conditions over facets mean what they mean over rows: against the filters of the store in memory."""

from __future__ import annotations

import json
import operator
import string
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedkit.connectors.facets import All, Condition, Facets, Has, Some, condition_of, facets_of
from embedkit.connectors.store import Key, StoreRow
from embedkit.errors import FilterError
from indexes.search.fields import Field
from indexes.search.syntax import And, Compare, Contains, IsNull, Node, Not, Or, parse_filter
from tests.connectors.memory import passes

TESTS: dict[str, Any] = {  # Any: comparisons
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
FIELDS = [
    Field("f", path=("f",)),
    Field("f.g", path=("f", "g")),
    Field("id", "doc_id"),
    Field("title", "title"),
]
texts = st.text(alphabet=string.ascii_lowercase[:3] + "\0é😀", max_size=26)
numbers = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.0, 1e30, 2**53 - 1, -(2**40)]))
scalars = st.one_of(texts, numbers, st.booleans())
literals = st.one_of(texts.filter(lambda text: len(text.encode()) < 30), numbers, st.booleans())
values = st.one_of(
    st.none(), scalars, st.lists(scalars, max_size=3), st.fixed_dictionaries({}, optional={"g": scalars})
)


def row(metadata: object, doc_id: str, title: str) -> StoreRow:
    return StoreRow(Key(doc_id, 0), title, "text", "", json.dumps(metadata), "", "")


rows = st.builds(
    row, st.fixed_dictionaries({}, optional={"f": values}), texts, st.sampled_from(["", "a", "1"])
)


def comparisons(field: Field) -> st.SearchStrategy[Node]:
    equal = st.builds(Compare, st.just(field), st.sampled_from(["=", "!="]), literals)
    if field.column == "title":
        return equal
    ordered = st.builds(Compare, st.just(field), st.sampled_from(["<", "<=", ">", ">="]), literals)
    empty = st.builds(IsNull, st.just(field))
    if field.column:
        return st.one_of(equal, ordered, empty)
    return st.one_of(equal, ordered, empty, st.builds(Contains, st.just(field), literals))


conditions = st.recursive(
    st.sampled_from(FIELDS).flatmap(comparisons),
    lambda part: st.one_of(
        st.builds(Not, part),
        st.builds(And, st.lists(part, min_size=1, max_size=3)),
        st.builds(Or, st.lists(part, min_size=1, max_size=3)),
    ),
    max_leaves=4,
)


def holds(condition: Condition, facets: Facets) -> bool:
    if isinstance(condition, Has):
        return (condition.token in facets.tokens) == condition.wanted
    if isinstance(condition, All):
        return all(holds(part, facets) for part in condition.parts)
    if isinstance(condition, Some):
        return any(holds(part, facets) for part in condition.parts)
    number = facets.numbers.get(condition.key)
    return number is not None and bool(TESTS[condition.operator](number, condition.number))


@settings(max_examples=200, deadline=None)
@example(row({"f": "abcabc"}, "", ""), Compare(FIELDS[0], ">=", "abcabc"))
@example(row({"f": "abcabcabc"}, "", ""), Compare(FIELDS[0], "<=", "abcabc"))
@example(row({"f": "x" * 400}, "", ""), Not(Compare(FIELDS[0], "<", "x" * 29)))
@given(rows, conditions)
def test_a_condition_over_facets_is_the_condition(some: StoreRow, node: Node) -> None:
    assert holds(condition_of(node, "Here"), facets_of(some)) == passes(node, some)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("f like 'a%'", "f against 'a%': Here finds whole values alone, no patterns"),
        ("f glob 'a*'", "no patterns"),
        ("not f matches 'a'", "no patterns"),
        ("f < '" + "x" * 30 + "'", "orders texts by their first 29 bytes"),
        ("title < 'x'", "does not order documents by their title"),
        ("f > 9007199254740992", "compares numbers as float64, which is not exact there"),
    ],
)
def test_what_facets_do_not_tell_is_refused(where: str, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        condition_of(parse_filter(where, ["f"]), "Here")


def test_large_whole_numbers_are_told_apart() -> None:
    node = parse_filter("f = 9007199254740993", ["f"])
    found = [holds(condition_of(node, "Here"), facets_of(row({"f": 2**53 + n}, "", ""))) for n in range(3)]
    assert found == [False, True, False]
