"""A hit that is opened: its document, why it matched, what is similar."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.serving.page.conftest import Page, until
from tests.serving.page.documents import DOCUMENTS
from tests.serving.page.fake import Fake

pytestmark = pytest.mark.browser
QUERY = "/?q=speed+of+light+measured"
ROEMER = f"{QUERY}&doc=history/roemer.md&in=papers&passage=1"
Visit = Callable[..., Page]


def test_a_hit_opens_at_its_passage_with_the_matching_words_marked(visit: Visit) -> None:
    page = visit(QUERY)
    page.get_by_role("link", name="Rømer and the moons of Jupiter").click()
    page.locator("#panel .passage mark").first.wait_for()
    assert page.locator("#panel .passage mark").all_inner_texts() == ["light", "speed", "light", "measured"]
    assert (
        page.locator("#panel-body").evaluate("body => body.scrollTop") == 0
    )  # it can be seen without scrolling
    assert page.locator("#panel .crumb").inner_text().split("\n") == ["papers", "history/roemer.md:3"]
    text = page.locator("#panel .full-text").inner_text()
    assert " ".join(text.split()) == " ".join(DOCUMENTS[0].text.split())
    assert "doc=history%2Froemer.md&in=papers&passage=1" in page.url
    assert page.locator("li.hit.current a").get_attribute("aria-current") == "true"
    page.locator("#panel summary").click()
    assert "peer reviewed\nyes" in page.locator("#panel .metadata").inner_text()


@pytest.mark.parametrize("number", [0, 3, 7])
def test_the_hits_stay_where_they_are_when_one_opens(visit: Visit, number: int) -> None:
    page = visit(QUERY)
    link = page.locator("#results a.hit-title").nth(number)
    link.scroll_into_view_if_needed()
    link.click()
    page.locator("#panel .passage").wait_for()
    box = page.locator("li.hit.current").bounding_box()
    assert box["y"] >= 64  # below the search box
    assert box["y"] + box["height"] <= 860 or number > 0
    assert number > 0 or page.evaluate("scrollY") == 0


def test_the_address_of_an_open_hit_leads_to_it(visit: Visit, fake: Fake) -> None:
    page = visit(ROEMER)
    page.locator("#panel .passage mark").first.wait_for()
    assert page.locator("#panel-title").inner_text() == "Rømer and the moons of Jupiter"
    assert page.locator("#panel .passage").inner_text().startswith("He concluded")
    page.reload()
    page.locator("#panel .passage mark").first.wait_for()
    page.goto("/?doc=history/roemer.md&in=papers&view=why")  # without a query
    page.get_by_text("There is no query to compare this passage with.").wait_for()


def test_closing_goes_back_to_the_hit_and_back_closes(visit: Visit) -> None:
    page = visit(QUERY)
    link = page.get_by_role("link", name="Rømer and the moons of Jupiter")
    entries = page.evaluate("history.length")
    link.click()
    page.locator("#panel .passage").wait_for()
    page.locator("#panel-next").click()
    page.locator("#panel-close").click()
    page.locator("#panel").wait_for(state="hidden")
    assert "doc=" not in page.url
    link.click()
    page.locator("#panel .passage").wait_for()
    page.go_back()
    page.locator("#panel").wait_for(state="hidden")
    assert page.evaluate("history.length") == entries + 1
    until(page, "document.activeElement.textContent === 'Rømer and the moons of Jupiter'")


def test_passages_of_a_document_are_stepped_through(visit: Visit) -> None:
    page = visit(ROEMER)
    page.get_by_role("button", name="Next passage").click()
    page.locator("#panel .passage", has_text="Cassini").wait_for()
    assert page.locator(".passage-steps span").inner_text() == "Passage 3 of 3"
    assert page.get_by_role("button", name="Next passage").is_disabled()
    assert "passage=2" in page.url


def test_why_it_matched_colours_words_and_lists_pairs(visit: Visit) -> None:
    page = visit(ROEMER)
    page.get_by_role("tab", name="Why it matched").click()
    page.locator(".heat").first.wait_for()
    warm = {each.lower() for each in page.locator(".heat .up5, .heat .up4").all_inner_texts()}
    assert warm == {"speed", "light", "measured"}
    assert page.locator(".legend").inner_text().split("\n") == ["lowers", "raises the score"]
    rows = page.locator(".pairs tbody tr")
    assert rows.first.inner_text().split() == ["speed", "speed", "0.950"]
    rows.first.hover()
    assert page.locator(".heat .lit").all_inner_texts() == ["speed", "speed"]
    assert "view=why" in page.url
    passage = page.locator(".heat").nth(1).inner_text()
    assert passage.startswith("He concluded that light takes time")


def test_of_a_sparse_model_the_terms_are_shown_with_what_they_add(visit: Visit, fake: Fake) -> None:
    fake.kinds = {"papers": "sparse"}
    page = visit(f"{ROEMER}&view=why")
    rows = page.locator(".pairs tbody tr")
    rows.first.wait_for()
    assert rows.first.inner_text().split() == ["speed", "1.00", "1.00", "1.00"]
    assert rows.last.inner_text().split() == ["physics", "0.500", "0.500", "0.250"]
    assert page.locator(".terms .added").all_inner_texts()[0].split() == ["+physics", "0.500"]


def test_the_colours_stand_under_their_words_where_signs_have_two_units(visit: Visit) -> None:
    page = visit("/?q=speed+of+light&doc=ja/light&in=papers&view=why")
    page.locator(".heat").first.wait_for()
    assert {each.lower() for each in page.locator(".heat .up5").all_inner_texts()} == {"speed", "light"}
    page.get_by_role("tab", name="Document").click()
    page.locator("#panel .passage mark").first.wait_for()
    assert page.locator("#panel .passage mark").all_inner_texts() == ["speed", "light", "light"]


def test_similar_passages_open_in_turn_and_escape_closes_all(visit: Visit) -> None:
    page = visit(ROEMER.split("&doc")[0])
    page.get_by_role("link", name="Rømer and the moons of Jupiter").click()
    page.get_by_role("tab", name="Similar").click()
    first = page.locator("#panel a.hit-title").first
    title = first.inner_text()
    first.click()
    until(page, "title => document.querySelector('#panel-title').textContent === title", title)
    page.locator("#panel .passage").wait_for()
    page.keyboard.press("Escape")
    page.locator("#panel").wait_for(state="hidden")
    assert "doc=" not in page.url


def test_metadata_of_a_document_becomes_a_filter(visit: Visit, fake: Fake) -> None:
    page = visit("/?q=light&doc=meetings/2024-03-08.md&in=notes&index=notes")
    page.get_by_role("button", name="Anna").click()
    page.wait_for_url("**f.who=Anna")
    until(page, "document.querySelectorAll('li.hit').length === 1")
    assert fake.asked[-1]["where"] == "who = 'Anna'"


def test_a_passage_of_a_thousand_lines_opens_at_once(visit: Visit) -> None:
    page = visit("/?q=protocol+thousand")
    page.locator("li.hit").wait_for()
    started = time.perf_counter()
    page.locator("a.hit-title").click()
    page.locator("#panel .passage mark").nth(999).wait_for(state="attached")
    assert time.perf_counter() - started < 2  # a third of a second on one core of 2020
    assert page.locator("#panel .passage").inner_text().count("\n") == 999


def test_of_a_very_long_document_the_surroundings_are_drawn_first(visit: Visit, fake: Fake) -> None:
    long = "\n\n".join(f"Paragraph {n} is about nothing. {'And so on. ' * 90}" for n in range(500))
    fake.documents = [type(DOCUMENTS[0])(id="long", title="Long", text=long)]
    page = visit("/?q=nothing&doc=long&in=papers&passage=250")
    page.locator("#panel .passage", has_text="Paragraph 250 is").wait_for()
    ends = page.evaluate(
        "['#panel-body', '#panel .passage'].map((name) => document.querySelector(name).getBoundingClientRect().top)"
    )
    assert 0 < ends[1] - ends[0] < 100  # scrolled to the passage
    assert page.locator("#panel .full-text").inner_text().count("Paragraph") < 250
    page.get_by_role("button", name="Show all").click()
    assert page.locator("#panel .full-text").inner_text().count("Paragraph") == 500


def test_what_follows_a_passage_begins_at_the_margin_but_keeps_its_indentation(
    visit: Visit, fake: Fake
) -> None:
    text = "First it.¶ Second.\n\n    indented"
    fake.documents = [type(DOCUMENTS[0])(id="a", title="A", text=text)]
    page = visit("/?q=it&in=papers&doc=a")
    page.locator("#panel .passage").wait_for()
    parts = "[...document.querySelectorAll('.full-text > div')].map((node) => node.textContent)"
    assert page.evaluate(parts) == ["First it.¶", "Second.\n\n    indented"]
    page.get_by_role("button", name="Next passage").click()
    until(page, f"{parts}.length === 3")
    assert page.evaluate(parts) == ["First it.¶", " Second.\n", "    indented"]


@pytest.mark.parametrize("doc_id", ["foucault?draft#2.md", "a/../b", "100% off", "straße/光 1", "a//b"])
def test_ids_of_any_signs_open(visit: Visit, fake: Fake, doc_id: str) -> None:
    fake.documents = [type(DOCUMENTS[0])(id=doc_id, title="Found", text="This is it.")]
    page = visit(f"/?q=it&in=papers&doc={quote(doc_id, safe='')}")
    page.locator("#panel .passage", has_text="This is it.").wait_for()


def test_a_document_that_is_gone_says_so(visit: Visit) -> None:
    page = visit(f"{QUERY}&doc=gone&in=papers")
    page.get_by_text("there is no document 'gone' in the index 'papers'").wait_for()
    page.keyboard.press("Escape")
    page.locator("#panel").wait_for(state="hidden")
