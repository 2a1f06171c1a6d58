"""--where: what it means, and that nothing but a comparison ever reaches SQLite."""

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.records import Document
from embedkit.errors import FilterError
from indexes import Index
from indexes.search.filters import compile_filter
from indexes.storage.database import add_functions
from indexes.storage.matching import _follow, _glob, path_glob
from tests.indexes.fakes import create, embed

ROWS: list[dict[str, Any]] = [
    {"lang": "en", "year": 2021, "open": True, "author": {"name": "Ann"}, "my field": 1},
    {"lang": "de", "year": 2019, "open": False, "author": {"name": "Bob"}},
    {"lang": "en", "year": "2022", "tags": None},
    {"lang": "it's", "price": 2.5, "a.b": 3},
    {"labels": ["pets", "home", 5, True, None], 'q"q': 5, "a\\b": "x", 'l"s': ["a b"]},
    {"labels": [], "contains": 7},
    {"labels": "pets"},
]
FIELDS = sorted({name for row in ROWS for name in row})


def matching(text: str) -> set[int]:
    """Return the numbers of ROWS that a filter lets pass."""
    connection = sqlite3.connect(":memory:")
    add_functions(connection)
    connection.execute("CREATE TABLE documents (doc_id, title, text, source, metadata)")
    values = [(f"d{n}", f"Title {n}", "text", "s", json.dumps(row)) for n, row in enumerate(ROWS)]
    connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", values)
    condition = compile_filter(text, FIELDS)
    found = connection.execute(
        f"SELECT rowid - 1 FROM documents WHERE {condition.sql}", condition.values
    ).fetchall()
    connection.close()
    return {number for (number,) in found}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("lang = 'en'", {0, 2}),
        ("lang == 'en' AND year > 2020", {0}),  # "2022" is a text
        ("year > 2020", {0}),
        ("year = '2022'", {2}),
        ("not lang = 'en'", {1, 3, 4, 5, 6}),
        ("lang != 'en'", {1, 3}),
        ("not year > 2020", {1, 2, 3, 4, 5, 6}),  # the opposite: where there is no number, too
        ("lang in ('de', 'it''s')", {1, 3}),
        ("lang not in ('de', 'it''s')", {0, 2, 4, 5, 6}),
        ("lang like 'E%'", {0, 2}),
        ("year between 2018 and 2020", {1}),
        ("open = true", {0}),
        ("open = false or price >= 2.5", {1, 3}),
        ("open = 1", set()),  # true is not the number 1
        ("author.name = 'Ann'", {0}),
        ('"my field" = 1', {0}),
        ("a.b = 3", {3}),
        ("tags is null", {0, 1, 2, 3, 4, 5, 6}),
        ("year is not null", {0, 1, 2}),
        ("id = 'd2' or title = 'Title 3'", {2, 3}),
        ("(lang = 'en' or lang = 'de') and (year = 2019 or open = true)", {0, 1}),
        ("price = 25e-1", {3}),
        ("year > -1 and year < +3000", {0, 1}),
        ("labels contains 'pets'", {4, 6}),  # a value alone is a list of one
        ("labels CONTAINS 'home'", {4}),
        ("'home' in labels", {4}),
        ("'home' not in labels", {0, 1, 2, 3, 5, 6}),
        ("labels not contains 'pets' and labels is not null", {5}),
        ("labels contains 5 or labels contains 'x'", {4}),
        ("labels contains true", {4}),
        ("labels contains 1", set()),  # true is not the number 1
        ("labels contains '5'", set()),
        ("lang glob 'e?'", {0, 2}),
        ("lang not glob '*n'", {1, 3, 4, 5, 6}),
        ("id glob 'd[0-2]' and not id glob 'd[!12]'", {1, 2}),
        ("title matches 'e [56]$'", {5, 6}),
        ("lang matches '^[de]'", {0, 1, 2}),
        ("lang not matches '(?i)^E'", {1, 3, 4, 5, 6}),
        ("year matches '2'", {2}),  # the others are numbers
        ("contains = 7", {5}),  # a field's name, too
        ("contains contains 7", {5}),
        ('"q""q" = 5', {4}),
        ("\"a\\b\" = 'x'", {4}),
        (r'"a\b" is null', {0, 1, 2, 3, 5, 6}),
        ('"l""s" contains \'a b\'', {4}),
    ],
)
def test_a_filter_means_what_it_says(text: str, numbers: set[int]) -> None:
    assert matching(text) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "lang matches 'a('",
            r"'a(' is no regular expression of Python's (missing ), unterminated subpattern",
        ),
        ("lang glob '[z-a]'", "'[z-a]' is no pattern of paths (bad character range z-a"),
        ("lang glob 3", "3 at character 11, where a text in single quotes was expected"),
        ("langg = 'en'", "no document has the field 'langg'; fields here: a.b, a\\b, author, contains, id,"),
        ("langg = 'en'", "did you mean 'lang'?"),
        ("lang = 'en'; DROP TABLE documents", "';' at character 12"),
        ("lang = 'en' -- x", "'-' at character 13"),
        ("lang = (SELECT 1)", "'(' at character 8, where a text"),
        ("1 = 1", "'1' at character 1, where a field was expected"),
        ("lang = en", "'en' (texts stand in single quotes) at character 8"),
        ("lang", "the end at character 5"),
        ("lang = 'en' lang = 'de'", "'lang' at character 13, where 'and', 'or' or the end was expected"),
        ("", "the end at character 1, where a field was expected"),
        ("lang = 'en", '"\'" at character 8'),
        ("lang like 3", "a text in single quotes"),
        ("lang contains other", "'other' (texts stand in single quotes) at character 15"),
        ("'x' = lang", "\"'x'\" at character 1, where a field was expected"),
        (
            "title contains 'x'",
            "'title' is a text, and contains looks into lists. Write it like: title like '%word%'",
        ),
        ("(lang = 'en'", "where ')' was expected"),
        ("not " * 60 + "lang = 'en'", "nested more than 50 deep"),
        ("(" * 60 + "lang = 'en'" + ")" * 60, "nested more than 50 deep"),
    ],
)
def test_what_is_not_in_the_language_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(text, FIELDS)
    assert message in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    try:
        matching(text)
    except FilterError:
        return


@given(st.text(max_size=20))
def test_a_value_is_only_ever_a_value(value: str) -> None:
    quoted = value.replace("'", "''")
    condition = compile_filter(f"lang = '{quoted}'", FIELDS)
    assert value in condition.values
    assert condition.sql == compile_filter("lang = 'x'", FIELDS).sql


def test_a_filter_is_used_by_search_and_delete(tmp_path: Path) -> None:
    with create(tmp_path / "i") as index:
        index.add(
            [Document(f"d{n}", "word", "", row) for n, row in enumerate(ROWS[:4])],
            embed(["a", "b", "c", "d"]),
        )
        assert {hit.doc_id for hit in index.search(embed(["a"]), where="lang = 'en'")[0]} == {"d0", "d2"}
        assert {hit.doc_id for hit in index.search_text(["word"], where="lang = 'en'")[0]} == {"d0", "d2"}
        with pytest.raises(FilterError, match="no document has the field 'nope'"):
            index.search(embed(["a"]), where="nope = 1")
        gone = index.delete(["d3", "zz"], where="year > 2000")
        assert (gone.documents, gone.missing) == (3, ("zz",))
        assert [hit.doc_id for hit in index.search(embed(["a"]))[0]] == ["d2"]


def test_a_list_compared_as_a_value_names_contains_and_the_other_way_round(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"lang": "en"}, {"tags": ["pets", "home"], "author": {"name": "Ann"}}]
    with create(tmp_path / "i") as index:
        index.add([Document(f"d{n}", "word", "", row) for n, row in enumerate(rows)], embed(["a", "b"]))
        for where in ("tags = 'pets'", "tags like '%pets%'", "tags in ('pets')", "not tags between 1 and 2"):
            with pytest.raises(
                FilterError, match=r"'tags' is a list, .* Write it like: tags contains 'value'"
            ):
                index.search(embed(["a"]), where=where)
            with pytest.raises(FilterError, match=r"'tags' is a list"):
                index.search_text(["word"], where=where)
            with pytest.raises(FilterError, match=r"'tags' is a list"):
                index.delete(where=where)
        with pytest.raises(FilterError, match=r"'author' is an object, .* like: author.field = 'value'"):
            index.search(embed(["a"]), where="author = 'Ann'")
        with pytest.raises(FilterError, match=r"'lang' is no list in any document, .* lang = 'value'"):
            index.search(embed(["a"]), where="lang contains 'en'")
        found = index.search(
            embed(["a"]), where="tags contains 'pets' and author.name = 'Ann' and tags is not null"
        )
        assert [hit.doc_id for hit in found[0]] == ["d1"]


def test_vectors_that_a_filter_lets_pass_are_counted(tmp_path: Path) -> None:
    with create(tmp_path / "i", 10) as index:
        assert (index.count_rows(), index.count_rows("lang = 'de'")) == (10, 5)
        index.delete(["note-0000"])
        assert (index.count_rows(), index.count_rows("lang = 'de'")) == (9, 4)
        with pytest.raises(FilterError, match="language"):
            index.count_rows("language = 'de'")


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("*.py", {"a.py", "src/b.py", "src/x/c.py"}),
        ("src/*.py", {"src/b.py"}),
        ("src/**/*.py", {"src/b.py", "src/x/c.py"}),
        ("src/**", {"src/b.py", "src/x/c.py"}),
        ("**/x/*", {"src/x/c.py"}),
        ("/a.*", {"a.py"}),
        ("?[.]p[!z]", {"a.py", "src/b.py", "src/x/c.py"}),
        ("[!]ac].md", {"[.md"}),
    ],
)
def test_a_pattern_without_a_slash_is_matched_by_the_last_part_of_a_path(
    pattern: str, paths: set[str]
) -> None:
    every = ["a.py", "src/b.py", "src/x/c.py", "[.md"]
    assert {path for path in every if path_glob(path, pattern)} == paths


# Pieces of patterns, each with a piece of a path; all but the last two fit.
FITTING = [
    ("a", "a"),
    ("?", "b"),
    ("*", ""),
    ("*", "ab"),
    ("*", "b\na"),
    ("/", "/"),
    ("[ab]", "b"),
    ("[!a]", "b"),
]
FITTING += [("[./]", "/"), ("**", "b/ab/"), ("**/", "a/bb/"), ("**/", ""), ("*", "a/b"), ("b", "a")]


@given(st.lists(st.sampled_from(FITTING), max_size=7))
def test_following_all_ways_through_a_path_finds_what_the_regular_expression_finds(
    pieces: list[tuple[str, str]],
) -> None:
    glob, path = _glob("".join(sign for sign, _ in pieces)), "".join(part for _, part in pieces)
    assert _follow(glob.pieces, path) == (glob.regex.fullmatch(path) is not None)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a*a*a*a*b", "a" * 200),
        ("*a" * 30 + "*b", "a" * 2000),
        ("**/" * 12 + "b", "a/" * 500),
        ("**a" * 12 + "b/*", "a/" * 500),
    ],
)
def test_many_stars_take_no_longer_than_the_lengths_of_pattern_and_path(pattern: str, path: str) -> None:
    """As one regular expression the first takes 13 s, and the others do not end."""
    began = time.process_time()  # of this process alone: others may be busy
    assert not path_glob(path, pattern)
    assert path_glob(path + "b", pattern) == (not pattern.endswith("b/*"))
    assert time.process_time() - began < 2


def test_regular_expressions_can_be_refused(tmp_path: Path) -> None:
    refused = r"^--where .*: regular expressions \(matches\) are off here, .* like or glob, .*--allow-regex"
    for text in ("lang matches 'e'", "year > 3 or not (title not matches '(a+)+b')", "lang MATCHES 'a('"):
        with pytest.raises(FilterError, match=refused):
            compile_filter(text, FIELDS, allow_regex=False)
    for text in ("matches = 3", "lang = 'matches' and lang glob '*'", "text like '%matches%'"):
        compile_filter(text, [*FIELDS, "matches"], allow_regex=False)
    create(tmp_path / "i", 10).close()
    with Index.open(tmp_path / "i", writable=True) as index:
        assert index.count_rows("text matches '.'") == 10
    with Index.open(tmp_path / "i", writable=True, allow_regex=False) as index:
        for ask in (
            lambda where: index.search(embed(["a"]), where=where),
            lambda where: index.search_ids(embed(["a"]), where=where),
            lambda where: index.search_text(["a"], where=where),
            lambda where: index.count_rows(where),
            lambda where: index.count_matching(where),
            lambda where: index.misuses(where),
            lambda where: index.delete(where=where),
        ):
            with pytest.raises(FilterError, match=refused):
                ask("text matches '.'")
        assert len(index) == 10


@pytest.mark.parametrize("field", ["lang", "title"])
def test_a_filter_may_name_thousands_of_values(field: str) -> None:
    wanted = "'Title 3'" if field == "title" else "'it''s'"
    listed = ", ".join([*(f"'x{number}'" for number in range(5000)), wanted])
    assert matching(f"{field} in ({listed})") == {3}
    assert matching(f"{field} not in ({listed})") == set(range(len(ROWS))) - {3}
    chained = " and ".join(f"not {field} = 'x{number}'" for number in range(2000))
    assert matching(chained) == set(range(len(ROWS)))


def test_more_values_than_sqlite_takes_are_refused_with_both_numbers() -> None:
    listed = ", ".join(["'x'"] * 32_001)
    with pytest.raises(FilterError, match=r"the filter has 32,001 values, .*; it may have 32,000\. Ask in"):
        matching(f"id in ({listed})")
