"""What the words of a text are."""

import sqlite3
import unicodedata
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes.search.text import match_expression
from indexes.storage.words import TOKENIZER, fold, index_words, placed_terms, query_terms

# Letters and marks of many scripts, close together, so that they meet.
BLOCKS = [
    (0x0020, 0x007E),
    (0x00A0, 0x017F),
    (0x0300, 0x036F),
    (0x0370, 0x03FF),
    (0x0400, 0x045F),
    (0x0590, 0x05F4),
    (0x0600, 0x06FF),
    (0x0900, 0x097F),
    (0x0980, 0x09FF),
    (0x0B80, 0x0BFF),
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1100, 0x11FF),
    (0x1780, 0x17FF),
    (0x1E00, 0x1FFF),
    (0x2000, 0x2150),
    (0x3000, 0x33FF),
    (0x4E00, 0x4E20),
    (0xAC00, 0xAC20),
    (0xFB00, 0xFEFF),
    (0xFF00, 0xFFEF),
    (0x20000, 0x20010),
]
LETTERS = st.one_of(*(st.integers(low, high).map(chr) for low, high in BLOCKS))
ANY_SCRIPT = st.text(LETTERS, max_size=30)
# SQLite's tables know no characters of the last years: of some new punctuation marks it makes letters.
KNOWN = st.text(LETTERS.filter(lambda char: unicodedata.ucd_3_2_0.category(char) != "Cn"), max_size=30)


def test_ascii_is_left_to_sqlite() -> None:
    text = "Plain ASCII: it's as it was, snake_case & all.\n"
    assert index_words(text) is text


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("ﬁ ＡＢＣ ｶﾞ ﻻ", "fi ABC ガ لا"),
        ("cafe\u0301 x\u0338", "café x"),
        ("מִלָּה עִבְרִית", "מלה עברית"),
        ("كِتَابٌ مـــد أإآٱ ى ة ک ی", "كتاب مد اااا ي ه ك ي"),
        ("می\u200cخواهم क\u200cष", "مي\u200cخواهم कष"),
        ("हिन्दी सम्बन्ध अङ्क हँस", "हिंदी संबंध अंक हंस"),
        ("जन्म ज़मीन", "जन्म ज़मीन"),
        ("Straße ẞ ё Ё ά ὧν", "Strasse ss е Е α ων"),
        ("٣ ۳ ३ ๓", "3 3 3 3"),
        ("soft\u00adhyphen a\u200bb", "softhyphen a\u200bb"),
        ("3½ x™ №5 m²", "3 1\u20442  x TM   No 5 m2"),
        ("𝐁old", "Bold"),
        ("한", "한"),
    ],
)
def test_forms_of_one_word_become_one(text: str, folded: str) -> None:
    assert fold(text) == folded


def test_scripts_without_spaces_are_cut_into_characters_and_clusters() -> None:
    assert index_words("AI数据库2024, 猫").split() == ["AI", "数", "据", "库", "2024,", "猫"]
    assert index_words("게임을 했다").split() == ["게", "임", "을", "했", "다"]
    assert index_words("เด็กไทย").split() == ["เด็", "ก", "ไท", "ย"]
    assert index_words("ខ្មែរ").split() == ["ខ្មែ", "រ"]


def test_a_query_looks_for_words_and_pairs_of_neighbours() -> None:
    assert query_terms("Full 数据库 猫! x") == ["Full", "数 据", "据 库", "猫", "x"]
    assert query_terms("a a") == ["a", "a"]
    assert query_terms("?! ") == []


@settings(deadline=None)
@given(ANY_SCRIPT)
def test_places_are_those_of_the_folded_text(text: str) -> None:
    """What stands between start and stop folds to the word, so what is marked is what was found."""
    for word, start, stop in placed_terms(text):
        assert 0 <= start < stop <= len(text)
        assert word.replace(" ", "") in fold(text[start:stop])


@settings(deadline=None)
@given(ANY_SCRIPT)
def test_folding_follows_nfkc(text: str) -> None:
    """But for the signs that get spaces, and what is dropped, it is the normal form of Unicode 3.2, whatever Python's is."""
    normal = unicodedata.ucd_3_2_0.normalize("NFKC", text)
    assert fold(normal).replace(" ", "") == fold(text).replace(" ", "")


@pytest.fixture(scope="module")
def table() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(f'CREATE VIRTUAL TABLE texts USING fts5(text, tokenize="{TOKENIZER}")')
        yield connection


@settings(deadline=None)
@given(text=KNOWN)
def test_a_text_is_found_by_each_of_its_words(table: sqlite3.Connection, text: str) -> None:
    table.execute("DELETE FROM texts")
    table.execute("INSERT INTO texts (text) VALUES (?)", (index_words(text),))
    for word, start, stop in placed_terms(text):
        for asked in (word.replace(" ", ""), text[start:stop]):
            expression = match_expression(query_terms(asked))
            found = table.execute("SELECT count(*) FROM texts WHERE texts MATCH ?", (expression,)).fetchone()
            assert found == (1,), (word, asked)
