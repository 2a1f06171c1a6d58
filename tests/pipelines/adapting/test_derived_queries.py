"""Queries that documents give by themselves: each way by hand, what is left out and counted, the same draw for the same document."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.records import Document
from embedkit.errors import RecordError
from embedkit.pipelines.adapting.derived_queries import (
    KINDS,
    LEFT_IN_PLACE,
    by_cropping,
    by_first_sentence,
    by_heading,
    by_title,
    derive_queries,
)

FIRST = "The hive is kept warm by bees."
SECOND = "They huddle around the queen all winter."
THIRD = "Honey feeds them until spring comes."
TEXT = f"{FIRST} {SECOND} {THIRD}"


def document(text: str = TEXT, title: str = "Bees in winter", doc_id: str = "a") -> Document:
    return Document(doc_id, text, title)


def test_the_title_asks_for_the_text() -> None:
    assert list(by_title(document())) == [("Bees in winter", TEXT)]


@pytest.mark.parametrize(
    "above", ["Bees in winter\n", "# Bees in Winter #\n\n", "BEES IN WINTER: ", "Bees in winter — ", "## bees in winter\n"]
)  # fmt: skip
def test_a_title_above_its_text_is_taken_out_of_it(above: str) -> None:
    assert list(by_title(document(above + TEXT))) == [("Bees in winter", TEXT)]


@pytest.mark.parametrize(
    "text", ["Bees in winter are warm in their hive all together", "Bees in wintery fields"]
)
def test_a_text_that_begins_with_its_title_as_its_subject_stays_whole(text: str) -> None:
    assert list(by_title(document(text))) == [("Bees in winter", text)]


def test_headings_ask_for_what_stands_under_them() -> None:
    text = f"# Bees in winter\n{FIRST}\n## The cluster\n{SECOND}\n## Food\n{THIRD}"
    assert list(by_heading(document(text))) == [("", ""), ("The cluster", SECOND), ("Food", THIRD)]


def test_the_first_sentence_asks_for_the_rest_under_the_title() -> None:
    assert list(by_first_sentence(document())) == [(FIRST, f"Bees in winter {SECOND} {THIRD}")]
    assert list(by_first_sentence(document(f"Warm bees. {TEXT}"))) == []  # a fragment
    assert list(by_first_sentence(document(f"# Bees in the winter hive\n{TEXT}"))) == []  # a heading


def test_a_cropped_sentence_asks_for_the_text_around_it_and_now_and_then_stays_there() -> None:
    """Of 1,000 documents a third crop each sentence and a tenth leave it in place: 333 ± 45 and 100 ± 29 are three deviations."""
    found = [next(by_cropping(document(title="", doc_id=str(i)))) for i in range(1000)]
    without = {FIRST: f"{SECOND} {THIRD}", SECOND: f"{FIRST} {THIRD}", THIRD: f"{FIRST} {SECOND}"}
    left = 0
    for query, passage in found:
        assert passage in (without[query.strip()], TEXT)
        left += passage == TEXT
    assert abs(left - 1000 * LEFT_IN_PLACE) < 29
    counts = Counter(query.strip() for query, _ in found)
    assert all(abs(count - 333) < 45 for count in counts.values())
    assert len(counts) == 3


def test_a_draw_depends_on_the_document_and_the_seed_alone() -> None:
    documents = [document(title="", doc_id=str(i)) for i in range(20)]
    together = derive_queries(documents, kinds=["crop"], seed=1)
    # All texts are equal here, so that most queries are ambiguous: what is drawn is looked at one document at a time.
    alone = [derive_queries([each], kinds=["crop"], seed=1).queries[0] for each in documents]
    drawn = [next(by_cropping(each, 1)) for each in documents]
    assert [(each.query, each.passage) for each in alone] == [(query.strip(), text) for query, text in drawn]
    assert len(together.queries) + together.ambiguous == 20
    assert drawn != [next(by_cropping(each, 2)) for each in documents]


def test_what_names_several_documents_or_nothing_is_left_out_and_counted() -> None:
    documents = [
        document(f"## Introduction\n{SECOND} {THIRD}", doc_id="a"),
        document(f"## introduction\n{THIRD} {FIRST}", "Keeping bees", doc_id="b"),
        document("Too short.", "Short", doc_id="c"),
        document("", "", doc_id="d"),
        document(TEXT, "…", doc_id="e"),
    ]
    found = derive_queries(documents, kinds=["title", "heading"])
    assert [(each.query, each.doc_id) for each in found.queries] == [
        ("Bees in winter", "a"),
        ("Keeping bees", "b"),
    ]
    assert (found.documents, found.without, found.ambiguous, found.repeated) == (5, 3, 2, 0)
    assert found.counts == {"title": 2, "heading": 0, "first sentence": 0, "crop": 0}


def test_a_query_that_comes_twice_for_a_document_is_taken_once_and_counted() -> None:
    """But the first sentence all are fragments, so that it is also the one that is cropped."""
    found = derive_queries([document(f"{FIRST} No. Not so. Not at all. Never, ever. Or?")])
    assert [each.kind for each in found.queries] == ["title", "first sentence"]
    assert found.repeated == 1


def test_nothing_to_derive_of_is_an_error() -> None:
    with pytest.raises(RecordError, match="there is no document to derive queries of"):
        derive_queries([])


@given(
    st.lists(
        st.tuples(st.text(max_size=20), st.text(alphabet="ab .\n#", max_size=120)), min_size=1, max_size=5
    )
)
def test_every_query_has_its_passage_and_every_document_is_counted(texts: list[tuple[str, str]]) -> None:
    documents = [Document(str(i), text, title) for i, (title, text) in enumerate(texts)]
    found = derive_queries(documents)
    assert found.documents == len(texts)
    assert sum(found.counts.values()) == len(found.queries)
    assert set(found.counts) == set(KINDS)
    for each in found.queries:
        assert each.query == " ".join(each.query.split()) != ""
        assert len(each.passage.split()) >= 8
    assert found.without <= found.documents - len({each.doc_id for each in found.queries})
