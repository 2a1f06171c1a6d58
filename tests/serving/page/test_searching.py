"""Searching from the page, in Chromium: as one types, with filters, reranked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from tests.serving.page.conftest import Page, until
from tests.serving.page.documents import XSS, Document
from tests.serving.page.fake import Fake

pytestmark = pytest.mark.browser
QUERY = "how was the speed of light first measured"
AT_HITS = "/?q=speed+of+light+measured"
Visit = Callable[..., Page]


def titles(page: Page) -> list[str]:
    found: list[str] = page.locator("#results a.hit-title").all_inner_texts()
    return found


def shown(page: Page, count: int) -> None:
    until(
        page,
        "count => document.querySelectorAll('#results li.hit').length === count && document.querySelector('#results').ariaBusy !== 'true'",
        count,
    )


def asked(page: Page, fake: Fake, **wanted: object) -> None:
    """Wait until the last search was for this."""
    end = time.monotonic() + 10
    while not (fake.asked and wanted.items() <= fake.asked[-1].items()):
        assert time.monotonic() < end, f"after 10 s, {fake.asked[-1:]} is not {wanted}"
        page.wait_for_timeout(20)


def test_the_modes_are_those_of_the_indexes(visit: Visit, fake: Fake) -> None:
    fake.modes = ("text",)
    page = visit("/?q=speed+of+light")
    asked(page, fake, mode="text")
    assert page.locator("input[name=mode]:disabled").count() == 2
    assert page.locator("input[name=mode]:checked").get_attribute("value") == "text"
    assert "ready vectors" in page.locator("#mode-dense").get_attribute("title")
    page.goto("/?q=zzz")
    page.get_by_text("No document has these words.").wait_for()
    assert not page.get_by_role("button", name="Search by meaning, too").count()


def test_kinds_of_models_are_told(visit: Visit, fake: Fake) -> None:
    fake.kinds = {"papers": "sparse", "notes": "multi-vector"}
    page = visit("/?q=speed+of+light&mode=dense&index=papers")
    asked(page, fake, mode="dense")
    assert page.locator("#mode-dense").get_attribute("title") == "By meaning alone: weights of terms"
    assert not page.locator("input[name=mode]:disabled").count()
    page.goto("/?q=speed+of+light&doc=history/roemer.md&in=papers&view=why")
    page.get_by_text("This index is of a sparse model.").wait_for()
    assert not any("explain" in path for path, _ in fake.seen)


def test_hits_appear_as_one_types_with_few_requests_and_one_entry_of_history(
    visit: Visit, fake: Fake
) -> None:
    page = visit()
    entries = page.evaluate("history.length")
    page.locator("#query").press_sequentially(QUERY, delay=15)
    shown(page, 8)
    assert "q=how+was+the+speed" in page.url
    assert page.title() == f"{QUERY} – embedkit search"
    assert page.locator("#status").inner_text().startswith("8 hits in 4.5 ms")
    assert "embedding 3.1, search 1.2" in page.locator("#status").inner_text()
    assert 1 <= len(fake.asked) < len(QUERY) / 2
    assert fake.asked[-1] == {
        "query": QUERY, "mode": "hybrid", "index": None, "k": 10, "where": None, "rerank": False, "all": False,
    }  # fmt: skip
    assert page.evaluate("history.length") == entries + 1
    until(page, "document.querySelector('#live').textContent === '8 hits'")


def test_a_hit_has_its_place_strength_scores_and_matching_words(visit: Visit) -> None:
    hit = visit(AT_HITS).locator("li.hit").first
    hit.locator(".place", has_text="optics/fizeau.md:3").wait_for()
    assert hit.locator(".place").inner_text() == "optics/fizeau.md:3"
    assert hit.locator(".hit-index").inner_text() == "papers"
    assert re.fullmatch(r"strength [1-5] of 5", hit.get_by_role("img").get_attribute("aria-label"))
    assert hit.locator(".sides").inner_text().split() == ["meaning", "0.828", "words", "11.8"]
    assert hit.locator(".snippet mark").all_inner_texts() == ["measured", "speed", "light"]
    assert "topic optics" in hit.locator(".chips").inner_text().replace("\n", " ")


def test_an_overtaken_request_is_aborted_and_its_answer_never_shown(visit: Visit, fake: Fake) -> None:
    page = visit()
    page.evaluate(
        "() => { window.drawn = []; new MutationObserver(() => drawn.push(document.querySelector('#results').innerText))"
        ".observe(document.querySelector('#results'), {childList: true}) }"
    )
    with page.expect_request("**/search"):
        page.locator("#query").fill("slow meeting of March")
    page.locator("#query").fill("speed of light")
    shown(page, 8)
    page.wait_for_timeout(600)  # longer than the slow answer takes
    assert fake.cancelled == ["slow meeting of March"]
    assert not [text for text in page.evaluate("drawn") if "Meeting of 8 March" in text.splitlines()[0:2]]
    assert len(titles(page)) == 8


def test_waiting_is_shown_only_where_it_takes_long(visit: Visit, fake: Fake) -> None:
    page = visit()
    page.evaluate(
        "() => { window.bones = 0; new MutationObserver(() => { bones += document.querySelectorAll('.skeleton').length })"
        ".observe(document.querySelector('#results'), {childList: true}) }"
    )
    page.locator("#query").fill("speed of light")
    shown(page, 8)
    assert page.evaluate("bones") == 0
    page.locator("#query").fill("")
    page.locator(".beginning").wait_for()
    page.locator("#query").fill("slow speed of light")
    page.locator(".skeleton").wait_for()
    shown(page, 8)


def test_mode_rerank_and_number_of_hits_are_asked_for(visit: Visit, fake: Fake) -> None:
    page = visit(AT_HITS)
    page.get_by_label("Words", exact=True).check()
    until(
        page,
        "document.querySelector('.side-score.dense') === null && document.querySelector('.side-score.text')",
    )
    assert fake.asked[-1]["mode"] == "text"
    page.get_by_label("Meaning", exact=True).check()
    page.locator(".side-score.dense").first.wait_for()
    page.get_by_label("Rerank", exact=True).check()
    page.locator(".side-score.rerank").first.wait_for()
    page.locator("#k").select_option("20")
    page.wait_for_url("**k=20**")
    assert (fake.asked[-1]["mode"], fake.asked[-1]["rerank"]) == ("dense", True)
    assert "mode=dense" in page.url
    assert "rerank=1" in page.url
    assert "Reranked by embedkit-rerank-small." in page.locator(".models").inner_text()


def test_without_a_reranker_the_switch_is_off_and_says_why(visit: Visit, fake: Fake) -> None:
    fake.rerankers = ()
    page = visit(AT_HITS)
    shown(page, 8)
    assert page.locator("#rerank").is_disabled()
    assert page.locator("#rerank-box").get_attribute("title") == "This server has no reranker"


def test_several_rerankers_can_be_chosen_from(visit: Visit, fake: Fake) -> None:
    fake.rerankers = ("small", "large")
    page = visit(f"{AT_HITS}&rerank=1")
    page.locator("#reranker").select_option("large")
    page.wait_for_url("**rerank=large")
    asked(page, fake, rerank="large")


def test_filters_are_made_of_the_fields_of_the_index(visit: Visit, fake: Fake) -> None:
    page = visit(AT_HITS)
    page.get_by_label("fr", exact=True).check()
    shown(page, 1)
    assert titles(page) == ["Foucault: light is slower in water"]
    assert fake.asked[-1]["where"] == "lang = 'fr'"
    page.get_by_label("en", exact=True).check()
    page.wait_for_url("**f.lang=fr&f.lang=en")
    page.get_by_label("year, from").fill("2021")
    page.wait_for_url("**f.year=2021..")
    shown(page, 3)
    assert fake.asked[-1]["where"] == "lang in ('fr', 'en') and year >= 2021"
    assert page.locator(".as-where code").inner_text() == fake.asked[-1]["where"]
    assert page.get_by_label("year, from").evaluate("box => box === document.activeElement")
    page.locator("#clear").click()
    shown(page, 8)
    assert fake.asked[-1]["where"] is None


def test_fields_of_one_index_flags_lists_and_quoted_names(visit: Visit, fake: Fake) -> None:
    page = visit(AT_HITS)
    shown(page, 8)
    assert page.get_by_label("topic", exact=True).count() == 0  # the other index has no such field
    page.get_by_label("papers").check()
    page.get_by_role("group", name="peer reviewed").get_by_label("no").check()
    page.locator("summary", has_text="tags").click()
    page.get_by_label("mirrors").check()
    shown(page, 2)
    assert fake.asked[-1]["index"] == ["papers"]
    assert fake.asked[-1]["where"] == "\"peer reviewed\" = false and tags contains 'mirrors'"


def test_where_indexes_share_no_field_the_page_says_what_to_do(visit: Visit, fake: Fake) -> None:
    fake.documents = [
        Document(id="1", title="A light", text="light", index="one", metadata={"lang": "en"}),
        Document(id="2", title="A lamp", text="light", index="two"),
    ]
    page = visit("/?q=light")
    page.get_by_text("Choose one index to filter by its fields.").wait_for()
    page.get_by_label("one").check()
    page.get_by_label("en", exact=True).wait_for()
    assert page.get_by_text("Choose one index to filter by its fields.").count() == 0


def test_a_filter_by_a_field_that_another_index_lacks_is_dropped_and_said(visit: Visit, fake: Fake) -> None:
    page = visit(f"{AT_HITS}&f.topic=optics&index=papers&index=gone")
    page.get_by_text("There is no index “gone” here.").wait_for()
    shown(page, 3)
    page.get_by_label("papers").uncheck()
    page.get_by_text("The filter by “topic” is not used").wait_for()
    shown(page, 8)
    assert fake.asked[-1]["where"] is None


def test_an_expression_is_refused_in_its_place_and_can_be_mended(visit: Visit, fake: Fake) -> None:
    page = visit(AT_HITS)
    page.locator("summary", has_text="Expression").click()
    page.locator("#where").fill("yaer > 2020")
    page.locator("#where").press("Enter")
    page.locator("#where-error", has_text="did you mean 'year'?").wait_for()
    assert page.locator("#where").get_attribute("aria-invalid") == "true"
    page.get_by_role("button", name="Edit the expression").click()
    assert page.evaluate("document.activeElement.id") == "where"
    page.keyboard.press("Control+A")
    page.keyboard.type("year > 2021")
    page.keyboard.press("Enter")
    shown(page, 2)
    assert page.locator("#where-error").inner_text() == ""
    assert fake.asked[-1]["where"] == "year > 2021"


def test_choices_can_be_taken_over_into_an_expression(visit: Visit, fake: Fake) -> None:
    page = visit(f"{AT_HITS}&f.lang=fr&f.lang=ar&where=year+<+2020+or+year+>+2021")
    shown(page, 2)
    assert fake.asked[-1]["where"] == "(lang in ('fr', 'ar')) and (year < 2020 or year > 2021)"
    page.get_by_role("button", name="Edit as an expression").click()
    page.wait_for_url(lambda address: "f.lang" not in address)
    assert page.locator("#where").input_value() == "(lang in ('fr', 'ar')) and (year < 2020 or year > 2021)"
    shown(page, 2)


def test_weak_hits_are_counted_and_shown_on_request(visit: Visit) -> None:
    page = visit("/?q=light+kilometres+zebra+quagga+okapi+lamp+table+table")
    page.get_by_role("button", name=re.compile("Show")).click()
    page.wait_for_url("**all=1**")
    page.locator("li.hit.weak").first.wait_for()
    assert "weak: no better than chance" in page.locator("li.hit.weak [role=img]").first.get_attribute(
        "aria-label"
    )
    page.get_by_role("button", name="Leave out").click()
    page.wait_for_url(lambda address: "all=" not in address)


def test_where_nothing_is_found_there_is_a_way_on(visit: Visit, fake: Fake) -> None:
    page = visit("/?q=zebra&f.lang=fr&mode=text")
    page.get_by_role("heading", name="Nothing found for").wait_for()
    page.get_by_role("button", name="Search by meaning, too").click()
    page.wait_for_url(lambda address: "mode=" not in address)
    page.locator(".stage").get_by_role("button", name="Clear all filters").click()
    page.wait_for_url(lambda address: "f.lang" not in address)
    asked(page, fake, mode="hybrid", where=None)


def test_two_hundred_hits_come_fifty_and_a_hundred_at_a_time(visit: Visit, fake: Fake) -> None:
    page = visit("/?q=catalogue&k=50")
    shown(page, 50)
    page.get_by_role("button", name="More hits").click()
    shown(page, 100)
    assert page.evaluate("document.activeElement.textContent") == titles(page)[50]
    page.get_by_role("button", name="More hits").click()
    shown(page, 200)
    assert page.get_by_role("button", name="More hits").count() == 0
    assert fake.asked[-1]["k"] == 200


def test_back_and_forward_bring_back_queries_filters_and_documents(visit: Visit) -> None:
    page = visit()
    page.locator("#query").fill("catalogue")
    shown(page, 10)
    page.locator("#query").press("Enter")
    page.locator("#query").fill("speed of light")
    shown(page, 8)
    page.get_by_label("fr", exact=True).check()
    shown(page, 1)
    page.locator("a.hit-title").click()
    page.locator("#panel .passage").wait_for()
    page.go_back()
    page.locator("#panel").wait_for(state="hidden")
    shown(page, 1)
    page.go_back()
    shown(page, 8)
    assert not page.get_by_label("fr", exact=True).is_checked()
    page.go_back()
    shown(page, 10)
    assert page.locator("#query").input_value() == "catalogue"
    page.go_back()
    page.locator(".beginning").wait_for()
    for _ in range(4):
        page.go_forward()
    page.locator("#panel .passage").wait_for()
    assert page.get_by_label("fr", exact=True).is_checked()


def test_markup_in_documents_stays_text(visit: Visit, fake: Fake) -> None:
    page = visit("/?q=dangerous")
    shown(page, 1)
    assert titles(page) == [XSS]
    page.locator("a.hit-title").click()
    page.locator("#panel .passage", has_text="dangerous").wait_for()
    page.get_by_role("tab", name="Why it matched").click()
    page.locator(".heat").first.wait_for()
    assert page.locator("#results img, #results script, #panel img, #panel script").count() == 0
    assert page.title() == "dangerous – embedkit search"
    page.goto(
        f"/?q={XSS}&where={XSS}&in={XSS}&doc={XSS}&f.{XSS}={XSS}&index={XSS}".replace("#", "%23").replace(
            " ", "+"
        )
    )
    page.locator("#panel .failed").wait_for()
    assert page.locator("main img, main script, #panel img, #panel script").count() == 0
    assert "owned" not in page.title().replace(XSS, "")


def test_texts_from_right_to_left_run_so(visit: Visit) -> None:
    page = visit("/?q=سرعة الضوء")
    shown(page, 1)
    for where in ("a.hit-title", ".snippet", "#query"):
        assert page.locator(where).first.evaluate("node => getComputedStyle(node).direction") == "rtl"


def test_typing_with_an_input_method_searches_once_it_is_composed(visit: Visit, fake: Fake) -> None:
    page = visit()
    page.evaluate(
        "() => { const box = document.querySelector('#query'); box.value = 'ひ';"
        "box.dispatchEvent(new InputEvent('input', {isComposing: true})); }"
    )
    page.wait_for_timeout(300)
    assert fake.asked == []
    page.evaluate(
        "() => { const box = document.querySelector('#query'); box.value = 'light'; box.dispatchEvent(new CompositionEvent('compositionend')); }"
    )
    shown(page, 8)
    assert [each["query"] for each in fake.asked] == ["light"]
