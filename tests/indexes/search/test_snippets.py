"""Snippets: the part of a text that holds most of a query's words, and where they stand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes import snippets
from indexes.search.snippets import mark_words


def test_a_snippet_is_the_sentence_that_matches_with_its_words_marked() -> None:
    text = "Nothing here. " * 30 + "Whales sing in the deep sea. " + "More of nothing. " * 30
    (snippet,) = snippets("singing whale", [text], max_chars=80)
    marked = [snippet.text[start:stop] for start, stop in snippet.spans]
    assert marked == ["Whales", "sing"]
    assert len(snippet.text) <= 80
    assert "Whales sing in the deep sea." in snippet.text


def test_a_snippet_of_what_does_not_match_is_the_beginning() -> None:
    (snippet,) = snippets("zebra", ["First sentence. Second sentence."], max_chars=20)
    assert (snippet.text, snippet.spans) == ("First sentence.", ())
    assert snippets("x", [""])[0].text == ""


@settings(deadline=None)
@given(st.text(max_size=300), st.text(max_size=20))
def test_a_snippet_is_part_of_its_text_and_its_spans_lie_within(text: str, query: str) -> None:
    (snippet,) = snippets(query, [text], max_chars=60)
    assert snippet.text in text
    assert len(snippet.text) <= 60
    assert all(0 <= start < stop <= len(snippet.text) for start, stop in snippet.spans)


@pytest.mark.parametrize(
    ("query", "text", "marked"),
    [
        ("数据库", "中文，数据库检索。数据", ["数据库", "数据"]),
        ("猫", "我养了一只猫。猫粮", ["猫", "猫"]),
        ("게임이", "오늘 게임을 했다", ["게임"]),
        ("น้ำ", "ดื่มน้ำเย็น", ["น้ำ"]),
        ("الكتاب", "هذا الكِتَابُ لي", ["الكِتَابُ"]),
        ("הספר", "הַסֵּפֶר על", ["הַסֵּפֶר"]),
        ("हिंदी", "यह हिन्दी है", ["हिन्दी"]),
        ("first full", "the ﬁrst ＦＵＬＬ", ["ﬁrst", "ＦＵＬＬ"]),
        ("cafe", "Café, CAFE\u0301 and cafes", ["Café", "CAFE\u0301", "cafes"]),
        ("strasse", "Die Straße", ["Straße"]),
        ("τιμη", "Η τιμή του", ["τιμή"]),
        ("sing", "singing\x00 songs", ["singing"]),
    ],
)
def test_the_words_of_a_query_are_marked_as_they_are_written(
    query: str, text: str, marked: list[str]
) -> None:
    (spans,) = mark_words(query, [text])
    assert [text[start:stop] for start, stop in spans] == marked


def test_a_snippet_of_a_text_without_spaces_is_the_sentence_that_matches() -> None:
    text = "今天天气很好。" * 40 + "数据库检索系统很重要。" + "明天会下雨。" * 40
    (snippet,) = snippets("检索系统", [text], max_chars=40)
    assert len(snippet.text) <= 40
    assert [snippet.text[start:stop] for start, stop in snippet.spans] == ["检索系统"]


@settings(deadline=None)
@given(st.text(max_size=100), st.text(max_size=20))
def test_spans_are_ascending_and_apart(text: str, query: str) -> None:
    (spans,) = mark_words(query, [text])
    borders = [border for span in spans for border in span]
    assert borders == sorted(borders)
    assert all(start < stop for start, stop in spans)
