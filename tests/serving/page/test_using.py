"""The page with the keyboard alone, in both colour schemes, on narrow screens, and as axe sees it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from embedkit.serving.http.access import Access
from tests.serving.page.conftest import Page, until
from tests.serving.page.fake import Fake

pytestmark = pytest.mark.browser
QUERY = "/?q=how+was+the+speed+of+light+first+measured"
ROEMER = f"{QUERY}&doc=history/roemer.md&in=papers&passage=1"
Visit = Callable[..., Page]
STATES = {
    "beginning": "/",
    "hits": QUERY,
    "filtered": f"{QUERY}&index=papers&f.lang=en&f.year=2018..2021&rerank=1",
    "weak": "/?q=light+kilometres+zebra+quagga&all=1",
    "nothing": "/?q=zebra&f.lang=fr",
    "refused": f"{QUERY}&where=yaer+>+3",
    "broken": "/?q=broken",
    "busy": "/?q=busy+light",
    "document": ROEMER,
    "why": f"{ROEMER}&view=why",
    "similar": f"{ROEMER}&view=similar",
    "right-to-left": "/?q=سرعة+الضوء&doc=ar/light&in=papers",
    "markup": "/?q=dangerous",
}
READY = {"beginning": ".beginning", "nothing": ".nothing", "refused": "main .failed", "broken": ".failed", "busy": ".note",
         "document": "#panel .passage", "why": ".pairs", "similar": "#panel li.hit", "right-to-left": "#panel .passage"}  # fmt: skip


def focused(page: Page) -> str:
    found: str = page.evaluate("document.activeElement.id || document.activeElement.textContent")
    return found


def test_from_end_to_end_with_the_keyboard_alone(visit: Visit) -> None:
    page = visit()
    keys = page.keyboard
    assert focused(page) == "query"
    keys.press("Tab")
    keys.press("/")
    assert focused(page) == "query"
    keys.type("speed of light measured")
    page.locator("li.hit").first.wait_for()
    until(page, "document.querySelectorAll('li.hit').length === 8")
    keys.press("ArrowDown")
    assert focused(page) == "The cogwheel on Montmartre"
    keys.press("j")
    assert focused(page) == "Rømer and the moons of Jupiter"
    keys.press("k")
    keys.press("ArrowDown")
    keys.press("Enter")
    page.locator("#panel .passage").wait_for()
    assert focused(page) == "panel-body"
    keys.press("Shift+Tab")
    assert focused(page) == "tab-document"
    keys.press("ArrowRight")
    page.locator(".pairs").wait_for()
    assert focused(page) == "tab-why"
    keys.press("j")
    until(page, "document.querySelector('#panel-title').textContent !== 'Rømer and the moons of Jupiter'")
    page.locator(".pairs").wait_for()
    keys.press("k")
    until(page, "document.querySelector('#panel-title').textContent === 'Rømer and the moons of Jupiter'")
    keys.press("Escape")
    page.locator("#panel").wait_for(state="hidden")
    assert focused(page) == "Rømer and the moons of Jupiter"
    keys.press("ArrowUp")
    keys.press("ArrowUp")
    assert focused(page) == "query"
    keys.press("ArrowDown")
    keys.press("?")
    page.locator("#help[open]").wait_for()
    keys.press("Escape")
    page.locator("#help").wait_for(state="hidden")
    keys.press("/")
    assert page.evaluate("getSelection().toString()") == "speed of light measured"


def test_the_document_follows_the_list_while_it_is_open(visit: Visit) -> None:
    page = visit(ROEMER)
    page.locator("#panel .passage").wait_for()
    page.get_by_role("link", name="Rømer and the moons of Jupiter").focus()
    page.keyboard.press("ArrowDown")
    until(page, "document.querySelector('#panel-title').textContent === document.activeElement.textContent")
    page.locator("#panel .passage").wait_for()
    page.keyboard.press("Escape")
    page.locator("#panel").wait_for(state="hidden")


def test_keys_of_a_single_sign_can_be_switched_off_for_good(visit: Visit) -> None:
    page = visit(QUERY)
    page.locator("li.hit").first.wait_for()
    page.locator("#help-open").click()
    page.get_by_label("Keys of a single letter or sign").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    page.locator("li.hit").first.wait_for()
    page.locator("a.hit-title").first.focus()
    page.keyboard.press("j")
    assert focused(page) == page.locator("a.hit-title").first.inner_text()
    page.keyboard.press("ArrowDown")
    assert focused(page) == page.locator("a.hit-title").nth(1).inner_text()


def test_what_has_the_focus_can_be_seen(visit: Visit) -> None:
    page = visit(QUERY)
    page.locator("li.hit").first.wait_for()
    seen = set()
    for _ in range(24):
        page.keyboard.press("Tab")
        looks = page.evaluate(
            "() => { const at = document.activeElement; const near = [at, at.nextElementSibling, at.closest('li')].filter(Boolean);"
            "return [at.id || at.className || at.tagName, near.some((node) => { const style = getComputedStyle(node);"
            "return style.outlineStyle !== 'none' || style.boxShadow !== 'none' })] }"
        )
        seen.add(looks[0])
        assert looks[1], f"{looks[0]} does not show that it has the focus"
    assert len(seen) > 12


def test_colours_are_the_systems_and_a_choice_is_remembered(visit: Visit) -> None:
    page = visit(QUERY, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(19, 20, 24)"
    page.locator("#theme").click()
    assert page.evaluate(ground) == "rgb(251, 251, 249)"
    page.reload()
    assert page.evaluate(ground) == "rgb(251, 251, 249)"
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.locator("#theme").get_attribute("title") == "Colours: as the system has them"
    assert page.evaluate("[localStorage.length, getComputedStyle(document.body).backgroundColor]") == [
        0,
        "rgb(19, 20, 24)",
    ]


def test_nothing_moves_for_those_who_do_not_want_it(visit: Visit) -> None:
    page = visit("/?q=slow+light", reduced_motion="reduce")
    page.locator(".bone i").first.wait_for()
    assert page.locator(".bone i").first.evaluate("node => getComputedStyle(node).animationName") == "none"


@pytest.mark.parametrize("state", STATES)
def test_narrow_screens_have_no_sideways_scrolling(visit: Visit, state: str) -> None:
    page = visit(STATES[state], size=(320, 640))
    page.locator(READY.get(state, "li.hit")).first.wait_for()
    for where in ("document.documentElement", "document.querySelector('#panel-body') ?? document.body"):
        wide = page.evaluate(f"(({where})).scrollWidth - (({where})).clientWidth")
        assert wide <= 0, where


def test_on_a_narrow_screen_filters_fold_and_a_document_covers_the_hits(visit: Visit) -> None:
    page = visit(QUERY, size=(360, 740))
    page.locator("li.hit").first.wait_for()
    assert not page.locator("#side").is_visible()
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("fr", exact=True).check()
    until(page, "document.querySelectorAll('li.hit').length === 1")
    assert page.locator("#side-count").inner_text() == "1"
    page.locator("a.hit-title").click()
    page.locator("#panel .passage").wait_for()
    assert page.locator("#panel").bounding_box() == {"x": 0, "y": 0, "width": 360, "height": 740}
    for _ in range(12):  # the focus stays in what can be seen
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || document.querySelector('#panel').contains(document.activeElement)"
        )
    page.set_viewport_size({"width": 1280, "height": 800})
    assert page.locator("#panel").evaluate("node => node.open && !node.matches(':modal')")
    page.set_viewport_size({"width": 360, "height": 740})
    page.keyboard.press("Escape")
    page.locator("#panel").wait_for(state="hidden")


def serious(page: Page) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {node['target']} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_serious(visit: Visit, state: str, scheme: str) -> None:
    page = visit(STATES[state], color_scheme=scheme)
    page.locator(READY.get(state, "li.hit")).first.wait_for()
    assert serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_dialogs_and_on_narrow_screens(
    visit: Visit, fake: Fake, scheme: str
) -> None:
    page = visit(ROEMER, color_scheme=scheme, size=(360, 740))
    page.locator("#panel .passage").wait_for()
    assert serious(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Filters").click()
    assert serious(page) == []
    page.locator("#help-open").click()
    assert serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_where_a_key_or_an_index_is_missing(
    visit: Visit, fake: Fake, scheme: str
) -> None:
    page = visit(QUERY, access=Access(keys=("k",)), color_scheme=scheme)
    page.locator("#key[open]").wait_for()
    assert serious(page) == []
    fake.has_index = False
    page = visit(color_scheme=scheme)
    page.locator(".no-index").wait_for()
    assert serious(page) == []
