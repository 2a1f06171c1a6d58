"""Queries of one id are refused with both places."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedkit.data.queries import read_distinct_queries
from embedkit.data.records import Query
from embedkit.errors import RecordError


def test_an_id_that_occurs_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"_id": "1", "text": "cat"}\n{"_id": "2", "text": "cat"}\n', encoding="utf-8")
    assert read_distinct_queries([str(path)]) == [Query("1", "cat"), Query("2", "cat")]
    (tmp_path / "r.jsonl").write_text('\n{"_id": "2", "text": "dog"}\n', encoding="utf-8")
    with pytest.raises(
        RecordError,
        match=r"r\.jsonl:2: the query id '2' occurs twice; it is also at .*q\.jsonl:2\. Rename or remove one",
    ):
        read_distinct_queries([str(path), str(tmp_path / "r.jsonl")])
