"""Search by words, and the snippets that show why a hit is one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.records import Document
from indexes import Index, snippets
from indexes.search.text import mark_words, match_expression
from tests.indexes.fakes import create, embed

TEXTS = {
    "whales": (
        "Whales",
        "Whales are mammals. They swim in the sea and sing to each other over long distances.",
    ),
    "fish": ("Fish", "Fish swim in the sea."),
    "sea": ("", "The sea is deep."),
    "land": ("Land", "Nothing of it here."),
    "café": ("", "Un café crème, s'il vous plaît."),
}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = create(tmp_path / "i")
    docs = [Document(doc_id, text, title, {"n": len(text)}) for doc_id, (title, text) in TEXTS.items()]
    index.add(docs, embed(list(TEXTS)))
    return index


def ids(index: Index, query: str, **options: object) -> list[str]:
    return [hit.doc_id for hit in index.search_text([query], **options)[0]]  # type: ignore[arg-type]  # tests give the right ones


def test_words_are_found_by_their_stems_in_title_and_text(index: Index) -> None:
    assert ids(index, "singing whale") == ["whales"]
    assert ids(index, "swimming") == ["fish", "whales"]  # the shorter text first
    assert ids(index, "CAFE") == ["café"]
    assert ids(index, "zebra") == []


def test_more_matching_words_rank_higher_and_scores_fall(index: Index) -> None:
    hits = index.search_text(["do fish swim in the deep sea"], k=3)[0]
    assert {hit.doc_id for hit in hits} == {"fish", "sea", "whales"}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].scores == {"text": hits[0].score}


def test_stop_words_count_only_where_nothing_else_does() -> None:
    assert match_expression("What is the sea?") == '"sea"'
    assert match_expression("to be or not") == '"to" OR "be" OR "or" OR "not"'
    assert match_expression("?! ") == ""


@pytest.mark.parametrize(
    "query", ['"', "sea AND", "NEAR(a b)", "title:sea*", "a-b ^c", "{x}", "' OR 1=1 --", "NOT NOT", ""]
)
def test_a_query_is_words_and_never_a_language(index: Index, query: str) -> None:
    index.search_text([query])


@given(st.text(max_size=50))
def test_any_text_makes_an_expression_that_fts5_takes(text: str) -> None:
    mark_words(text, ["some words"])


def test_deleted_and_replaced_words_are_not_found(index: Index) -> None:
    index.delete(["fish"])
    index.add([Document("sea", "Now about mountains.")], embed(["x"]))
    assert ids(index, "deep fish") == []
    assert ids(index, "mountain") == ["sea"]


def test_equal_scores_come_in_the_order_of_their_ids_however_many_they_are(tmp_path: Path) -> None:
    with create(tmp_path / "i") as index:
        docs = [Document(f"d{number:03d}", "the same words") for number in reversed(range(200))]
        index.add(docs, embed([doc.doc_id for doc in docs]))
        assert ids(index, "same", k=3) == ["d000", "d001", "d002"]


def test_text_search_takes_filters_and_groups(index: Index) -> None:
    assert ids(index, "sea", where="n < 20") == ["sea"]
    assert ids(index, "sea swim", group=True, k=2) == ["fish", "whales"]


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


@given(st.text(max_size=300), st.text(max_size=20))
def test_a_snippet_is_part_of_its_text_and_its_spans_lie_within(text: str, query: str) -> None:
    (snippet,) = snippets(query, [text], max_chars=60)
    assert snippet.text in text
    assert len(snippet.text) <= 60
    assert all(0 <= start < stop <= len(snippet.text) for start, stop in snippet.spans)
