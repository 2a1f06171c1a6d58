"""Fields that an unfinished filter may go on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedkit.data.records import Document
from embedkit.errors import IndexFileError
from indexes import Index
from indexes.search.completions import complete_filter, with_fields
from tests.indexes.fakes import create, embed

NAMES = ("year", "lang", "odd name", 'q"t', "and", "a.b")
OWN = ["id", "title", "text", "source"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("y", ["year"]),
        ("year", ["year"]),
        ("not l", ["not lang"]),
        ("(l", ["(lang"]),
        ("year > 20 and l", ["year > 20 and lang"]),
        ("year > 20 AND  so", ["year > 20 AND  source"]),
        ("'x' in l", ["'x' in lang"]),
        ("'x' not in l", ["'x' not in lang"]),
        ("a", ['"and"', "a.b"]),  # a field with the name of a word of the language stands in quotes
        ("od", ['"odd name"']),
        ('"o', ['"odd name"']),
        ("q", ['"q""t"']),
        ("title like 'x' or ti", ["title like 'x' or title"]),
        ("lang = 'open an", []),
        ("year > ", []),
        ("year > 2", []),
        ("year ", []),
        ("lang in ", []),
        ("lang not ", []),
        ("tags contains ", []),
        ("year = 1 an", []),
        ("zzz", []),
    ],
)
def test_a_field_is_offered_where_one_stands_next(text: str, found: list[str]) -> None:
    assert with_fields(text, NAMES) == found


def test_an_empty_filter_begins_with_any_field() -> None:
    quoted = ['"odd name"', '"q""t"', '"and"']
    assert with_fields("", NAMES) == ["year", "lang", *quoted, "a.b", *OWN]


def test_what_is_offered_can_be_searched_with(tmp_path: Path) -> None:
    metadata = dict.fromkeys(("year", "odd name", 'q"t', "and"), 1)
    with create(tmp_path / "i") as index:
        index.add([Document("d", "word", "", metadata)], embed(["word"]))
    offered = [each for each in complete_filter(tmp_path / "i", "") if each not in OWN]
    assert len(offered) == 4
    with Index.open(tmp_path / "i") as index:
        for field in offered:
            assert [hit.doc_id for hit in index.search_text(["word"], where=f"{field} = 1")[0]] == ["d"]
    with pytest.raises(IndexFileError):
        complete_filter(tmp_path / "none", "")
