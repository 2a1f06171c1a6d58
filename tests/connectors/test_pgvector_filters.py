"""A filter as PostgreSQL's SQL; that it means the same as in an index is the suite's to show."""

from __future__ import annotations

import pytest

from embedkit.connectors.pgvector_filters import to_sql
from embedkit.errors import FilterError
from indexes.search.syntax import parse_filter


def test_values_are_bound_in_the_order_of_their_places() -> None:
    sql, values = to_sql(
        parse_filter("not (a.b = 'x' or c contains 3) and title like 'T%' and d is null", ["a", "c", "d"])
    )
    assert sql.count("%s") == len(values)
    assert values == ["a", "b", "a", "b", "x", "c", "3", "c", "c", "c", "3", "T%", "d"]


def test_no_value_comes_into_the_sql() -> None:
    sql, values = to_sql(
        parse_filter("\"x'; DROP TABLE y\" = 'a''b; --' and id glob '*'';'", ["x'; DROP TABLE y"])
    )
    assert "DROP" not in sql
    assert "--" not in sql
    assert "a'b; --" in values


def test_a_regular_expression_is_refused() -> None:
    with pytest.raises(FilterError, match="PostgreSQL's regular expressions are not Python's"):
        to_sql(parse_filter("title matches 'a'", []))
